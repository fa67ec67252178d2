"""Plans against their promises: speed, targets, prediction, planning time."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
from common import RESNET8, arguments, machine, table

from dsconvert import Goals
from dsconvert.base.progress import silent
from dsconvert.workflows import plan_session
from dsconvert.workflows.model_files import ModelPath, open_model
from dsconvert.workflows.plan_session import PlanOptions, TargetWish

OPTIONS = PlanOptions()


TARGETS = {
    "LiteRT float32": TargetWish(runtime="litert"),
    "LiteRT int8": TargetWish(runtime="litert", precision="int8"),
    "ONNX Runtime": TargetWish(runtime="ort"),
    "Ethos-U55-128": TargetWish(device="ethos-u55-128"),
}


def main() -> None:
    chosen = arguments(__doc__, "speed", "targets", "resnet50")
    print(f"Machine: {machine()}")
    parts: dict[str, Callable[[Path, Path], None]] = {
        "speed": speed,
        "targets": targets,
        "resnet50": resnet50,
    }
    for name in chosen.only.split(","):
        parts[name](chosen.models, chosen.data)


def _session(
    file: Path,
    goals: Goals,
    calibration: str,
    target: TargetWish | None = None,
    options: PlanOptions = OPTIONS,
) -> AbstractContextManager[plan_session.PlanSession]:
    return plan_session.plan_session(
        ModelPath(file, trust=True),
        goals,
        calibration=calibration,
        target=target,
        options=options,
        progress=silent,
    )


def _blocks(plan: Any) -> str:
    return " ".join(
        "–" if layer.choice is None else _told(layer.choice)
        for layer in plan.layers
        if layer.reason is None or layer.reason.code in ("kept", "no-gain", "stem")
    )


def _told(choice: Any) -> str:
    """Say in three characters: 2d for two pairs, depthwise first, R24 for a three-factor block."""
    return f"R{choice.channels}" if choice.channels else f"{choice.pairs}{choice.order[0]}"


# Never slower.


def speed(models: Path, data: Path) -> None:
    errors: list[float] = []
    table(
        "Planned without a goal, one thread, float32: p50 against the original's",
        ["model", "runtime", "convolutions", "planned: measured", "predicted", "naive T = 2"],
        _speed_rows(models, errors),
    )
    if errors:
        print(
            f"\nPredicted against measured time: median error "
            f"{100 * statistics.median(errors):.1f} %, largest {100 * max(errors):.1f} %, "
            f"{len(errors)} networks."
        )


def _speed_rows(models: Path, errors: list[float]) -> Iterator[list[Any]]:
    files = sorted(path for path in models.rglob("*") if path.is_file() and path.suffix != ".md")
    for file in files:
        if file.suffix not in (".h5", ".hdf5", ".keras", ".onnx"):
            continue
        for runtime in ("litert", "ort"):
            yield [file.name, runtime, *_one_speed(file, runtime, errors)]


def _one_speed(file: Path, runtime: str, errors: list[float]) -> list[str]:
    from dsconvert.base.errors import DsconvertError

    with tempfile.TemporaryDirectory() as folder:
        try:
            calibration = _images_for(file, Path(folder))
            target = TargetWish(runtime=runtime)
            goals = Goals()
            with _session(file, goals, calibration, target, PlanOptions(samples=20)) as session:
                return _compare(session, goals, errors)
        except DsconvertError as error:
            return ["", f"– ({error.message[:90]})", "", ""]


def _compare(session: Any, goals: Any, errors: list[float]) -> list[str]:
    plan = session.search_space.plan(goals)
    naive = _naive(plan)
    if not naive.chosen:
        return [f"0 of {len(plan.layers)}", "nothing to rewrite", "", ""]
    build = session.target_files.build
    files = [session.original, build(session.rewrite(naive, fitted=False).model, "naive")]
    if plan.chosen:
        files.append(build(session.rewrite(plan, fitted=False).model, "planned"))
    # A network that takes a third of a second is not timed 150 times.
    runs = 150 if plan.before.cost < 300 else 20
    measured = session.target_files.profile(*files, runs=runs)
    before = measured[0].latency.p50_ms
    told = "unchanged"
    predicted = ""
    if plan.chosen:
        after = measured[2].latency.p50_ms
        share = plan.after.cost / plan.before.cost  # as `dsconvert plan` tells it
        errors.append(abs(after - share * before) / after)
        told, predicted = _ratio(measured[2]), f"{share:.2f}"
    return [f"{len(plan.chosen)} of {len(plan.layers)}", told, predicted, _ratio(measured[1])]


def _ratio(measurement: Any) -> str:
    one = measurement.comparison
    return f"{one.ratio:.2f} ({one.low:.2f}–{one.high:.2f}), {one.verdict}"


def _naive(plan: Any) -> Any:
    """Return every convolution, the stem included, as one pair with depth_multiplier 2."""
    import msgspec

    from dsconvert.converter.core.types import Choice

    can = ("kept", "no-gain", "stem", "no-saving")
    choice = Choice(pairs=2, order="depthwise-first", lowering="multiplier")
    layers = tuple(
        msgspec.structs.replace(layer, choice=choice, reason=None)
        if layer.choice is not None or (layer.reason and layer.reason.code in can)
        else layer
        for layer in plan.layers
    )
    return msgspec.structs.replace(plan, layers=layers)


def _images_for(file: Path, folder: Path) -> str:
    """Smooth random images of the shape that a model takes; their values do not change its time."""

    opened = open_model(ModelPath(file, trust=True))
    rng = np.random.default_rng(0)
    arrays = {}
    for name, shape in zip(opened.input_names, opened.input_shapes, strict=True):
        sizes = [
            size or (3 if axis == 1 and len(shape) == 2 else 64) for axis, size in enumerate(shape)
        ][1:]
        arrays[name] = rng.random((20, *sizes), dtype=np.float32)
    path = folder / "images.npz"
    if len(arrays) == 1:
        arrays = {"x": next(iter(arrays.values()))}
    np.savez(path, **arrays)
    return str(path)


# One network, four targets.


def targets(models: Path, data: Path) -> None:

    file = models / RESNET8
    goals = Goals(max_error=0.25)
    plans, rows = {}, []
    for name, target in TARGETS.items():
        with _session(file, goals, str(data), target) as session:
            plans[name] = session.search_space.plan(goals)
    for name, target in TARGETS.items():
        with _session(file, goals, str(data), target) as session:
            built = [
                session.target_files.build(
                    session.rewrite(plan, fitted=False).model, f"plan{number}"
                )
                for number, plan in enumerate(plans.values())
            ]
            before, *costs = session.target_files.cost(session.original, *built)
            rows.append([name, *(f"{cost / before:.3f}" for cost in costs)])
    for name, plan in plans.items():
        print(f"\n{name}: {_blocks(plan)}")
    table(
        f"{RESNET8}: the least cost at output error ≤ 0.25, as a share of the "
        f"original's on each target",
        ["on", *(f"planned for {name}" for name in plans)],
        rows,
    )


# How long planning takes.


def resnet50(models: Path, data: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        code = (
            "import sys, keras, numpy as np\n"
            "keras.utils.set_random_seed(0)\n"
            "keras.applications.ResNet50(weights=None).save(sys.argv[1])\n"
            "x = np.random.default_rng(0).random((32, 224, 224, 3), np.float32)\n"
            "np.savez(sys.argv[2], x=x)\n"
        )
        model, images = folder / "resnet50.keras", folder / "images.npz"
        subprocess.run([sys.executable, "-c", code, model, images], check=True)
        environment = os.environ | {"DSCONVERT_CACHE": str(folder / "cache")}
        rows = []
        for run in ("first", "again"):
            plan = folder / f"{run}.json"
            command = [
                *(sys.executable, "-c", "from dsconvert.cli import main; main()"),
                *("plan", model, "-o", plan, "--calibration", images, "-q"),
            ]
            started = time.perf_counter()
            done = subprocess.run(
                command, check=True, env=environment, capture_output=True, text=True
            )
            rows.append([run, f"{time.perf_counter() - started:.0f}"])
            told = [
                line for line in done.stdout.splitlines() if " of 5" in line or "measured" in line
            ]
            print("\n" + "\n".join(told))
    table("ResNet50 (random weights), 32 images of 224²: time to plan", ["run", "s"], rows)


if __name__ == "__main__":
    main()
