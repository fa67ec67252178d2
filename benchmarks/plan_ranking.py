"""Do plans that look alike before a refinement still do so after it?

The output errors that plans add up are those of single, unrefined layers. For each network the best
plan at a budget and some that come close to it are rewritten, refined for a short and for a longer
time, and judged on images that nothing else has seen: would the whole network's error as fitted,
or after the short refinement, choose a better plan than the sum does?
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from common import RESNET8, VGG6, arguments, machine, table


class Network(NamedTuple):
    """A network and how it takes pictures.

    Attributes:
        file: Below the folder of models.
        shape: Of its pictures, height × width × channels, enlarged from CIFAR-10's.
        scale: What the numbers 0 to 255 are multiplied by, before `shift` is added.
        shift: See `scale`.
    """

    file: str
    shape: tuple[int, int, int]
    scale: float = 1.0
    shift: float = 0.0


NETWORKS = {
    "resnet8": Network(RESNET8, (32, 32, 3)),
    "winml": Network("onnx/winml_pytorch_tutorial_cnn.onnx", (32, 32, 3), 1 / 127.5, -1),
    "streamlit": Network("keras/cifar10_cnn_streamlit.keras", (32, 32, 3), 1 / 255),
    "fer2013": Network("keras/fer2013_mini_xception_102.hdf5", (64, 64, 1), 1 / 127.5, -1),
    "lenet": Network("keras/nncf_lenet.h5", (28, 28, 1), 1 / 255),
    "donkey": Network("keras/donkey_tests_model.hdf5", (120, 160, 3)),
    "nvidia": Network("keras/behavioral_cloning_nvidia.h5", (66, 200, 3)),
    "vgg6": Network(VGG6, (32, 32, 3)),
}
CALIBRATION, JUDGE = 300, 500
"""Pictures to plan, fit and refine with, and others to judge by."""
SPREAD = 0.7
"""Of the factors (log-normal) that output errors are multiplied by, to find plans close by."""


def main() -> None:
    chosen = arguments(__doc__, *NETWORKS, plans="4", share="0.5x", steps="50,300", seed="0")
    print(f"Machine: {machine()}")
    columns = ["network", "M MACs", "plans", "by the sum: fitted", "short", "long"]
    table(
        "Output error on unseen pictures of the plan that each way of ranking takes",
        [*columns, "by fitted: long", "by short: long", "the best: long", "ranks: sum", "short"],
        (_row(name, chosen) for name in chosen.only.split(",")),
    )


def _row(name: str, chosen: Any) -> list[Any]:
    from dsconvert.base.errors import DsconvertError

    try:
        return _ranked(name, chosen)
    except DsconvertError as error:
        return [name, "", f"– ({error.message[:80]})", *[""] * 8]


def _ranked(name: str, chosen: Any) -> list[Any]:
    import dsconvert as ds
    from dsconvert.converter.core.planning.goals import Goals
    from dsconvert.converter.plan import search_space

    seed, network = int(chosen.seed), NETWORKS[name]
    opened = ds.load(chosen.models / network.file, trust=True)
    shown = pictures(network, chosen.data, opened.input_shapes[0], CALIBRATION + JUDGE)
    x, unseen = shown[:CALIBRATION], shown[CALIBRATION:]
    space = search_space(opened.model, calibration=x, folder=opened.folder, seed=seed)
    goals = Goals(macs=chosen.share)
    plans = _close(space, goals, int(chosen.plans), seed)
    short, long = map(int, chosen.steps.split(","))
    errors = np.array([_errors(opened, plan, x, unseen, (0, short, long), seed) for plan in plans])
    fitted, quick, refined = errors.T
    assert plans[0].after is not None
    return [
        name,
        f"{(plans[0].after.macs or 0) / 1e6:.2f}",
        len(plans),
        *(f"{one:.4g}" for one in errors[0]),
        *(f"{refined[way.argmin()]:.4g}" for way in (fitted, quick, refined)),
        _agreement(np.arange(len(plans)), refined),
        _agreement(quick, refined),
    ]


def _close(space: Any, goals: Any, count: int, seed: int) -> list[Any]:
    """Return the plan of the goals and others within them, by the rising sum of their errors."""
    found = {_key(plan): plan for plan in [space.plan(goals)]}
    rng = np.random.default_rng(seed)
    for _ in range(200):
        layers = tuple(
            msgspec.structs.replace(layer, candidates=_shaken(layer.candidates, rng))
            for layer in space.layers
        )
        plan = dataclasses.replace(space, layers=layers).plan(goals)
        found.setdefault(_key(plan), plan)
    sums = {key: _sum(space, plan) for key, plan in found.items()}
    return [found[key] for key in sorted(found, key=sums.__getitem__)[:count]]


def _key(plan: Any) -> str:
    return repr(sorted(plan.chosen.items()))


def _shaken(candidates: Any, rng: Any) -> Any:
    def shaken(candidate: Any) -> Any:
        factor = float(np.exp(rng.normal(0, SPREAD)))
        effect = msgspec.structs.replace(
            candidate.effect, output_error=candidate.effect.output_error * factor
        )
        return msgspec.structs.replace(candidate, effect=effect)

    return tuple(map(shaken, candidates))


def _sum(space: Any, plan: Any) -> float:
    """Add up the true output errors of a plan's choices."""
    known = {
        (layer.name, repr(candidate.choice)): candidate.effect.output_error
        for layer in space.layers
        for candidate in layer.candidates
    }
    return sum(known[name, repr(choice)] for name, choice in plan.chosen.items())


def _errors(
    opened: Any, plan: Any, x: Any, unseen: Any, steps: tuple[int, ...], seed: int
) -> list[float]:
    """Return the output error as fitted and after each number of steps."""
    from dsconvert.base import fidelity
    from dsconvert.base.progress import silent
    from dsconvert.converter.rewrite import rewrite
    from dsconvert.workflows.predictors import predictor_of, runnable
    from dsconvert.workflows.refine import refined

    with runnable(opened) as original:
        expected = original.predict([unseen])
    made = rewrite(opened.model, calibration=x, plan=plan, folder=opened.folder, seed=seed)
    begun = made.model.get_weights() if opened.kind == "keras" else None
    found = []
    for count in steps:
        if begun is not None:
            made.model.set_weights(begun)
        model, _ = refined(
            made.model, opened, made.report, [x], wish=f"{count}steps" if count else 0,
            seed=seed, progress=silent,
        )  # fmt: skip
        with predictor_of(model, opened) as predictor:
            found.append(fidelity.output_error(expected, predictor.predict([unseen])))
    return found


def _agreement(one: Any, other: Any) -> str:
    """Return the rank correlation (Spearman) of two orders."""
    from scipy.stats import spearmanr

    return f"{spearmanr(one, other).statistic:.2f}" if len(one) > 2 else "–"


def pictures(network: Network, data: Path, taken: tuple[int | None, ...], count: int) -> Any:
    """Return training pictures, drawn with seed 0, as a network takes them."""
    from PIL import Image

    height, width, channels = network.shape
    mode = "L" if channels == 1 else "RGB"
    with np.load(data) as stored:
        chosen = np.random.default_rng(0).permutation(len(stored["x_train"]))
        x = stored["x_train"][chosen[:count]]
    resized = [
        np.asarray(
            Image.fromarray(one).convert(mode).resize((width, height), Image.Resampling.BICUBIC)
        )
        for one in x
    ]
    found = np.stack(resized).reshape(-1, height, width, channels).astype(np.float32)
    found = found * np.float32(network.scale) + np.float32(network.shift)
    return found if taken[-1] == channels else np.ascontiguousarray(found.transpose(0, 3, 1, 2))


if __name__ == "__main__":
    main()
