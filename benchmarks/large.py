"""Networks larger than MLPerf Tiny's, of 100 classes: rewritten at a measured half of the time.

    python benchmarks/large.py [--cifar100 cifar100.npz] [--cache FOLDER] [--only PART,…] [--fresh]
    python benchmarks/large.py --quick

A ResNet-18-like and a MobileNetV2-like network are trained on CIFAR-100 from random weights, then
planned for half of their time on each runtime, fitted to 1,000 images without labels, refined on
these, and fine-tuned on all images without labels. Then their int8 files, with and without training
for int8. What was done is kept in --cache and not done again unless --fresh says so; an interrupted
training goes on where it was. --quick runs all of it on scikit-learn's digits: it shows that
everything works, and its figures say nothing.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from common import QUICK, RESULTS, machine, table
from digits import write_digits
from large_int8 import int8
from large_networks import Training, mobilenet_v2, resnet18, train_by_labels
from large_run import Amounts, Run
from steps import Labelled, Shelf, top1

PARTS = ("rewrite", "int8")
RUNTIMES = {"litert": "LiteRT", "ort": "ONNX Runtime"}
SUFFIXES = {"litert": ".tflite", "ort": ".onnx"}
LITTLE = 0.95
"""A share of the time that is not worth a rewrite, nor beyond what one measurement differs by."""

FULL = Amounts({"resnet18": Training(10, True), "mobilenet-v2": Training(10, False)})
SHORT = Amounts(
    {"resnet18": Training(1, True), "mobilenet-v2": Training(1, False)},
    calibration=100,
    refine="5steps",
    epochs=1,
)
DRAWN = {"resnet18": resnet18, "mobilenet-v2": mobilenet_v2}


def main() -> None:
    chosen = arguments()
    print(f"Machine: {machine()}")
    tables = (QUICK if chosen.quick else RESULTS) / "large"
    folder = chosen.cache or tables
    folder.mkdir(parents=True, exist_ok=True)
    if chosen.quick:
        path = folder / "digits.npz"
        write_digits(path)
        data = Labelled.of("scikit-learn's digits, 16×16", path)
    else:
        data = Labelled.of("CIFAR-100", chosen.cifar100)
    amounts = SHORT if chosen.quick else FULL
    if chosen.epochs is not None:
        amounts = replace(amounts, epochs=chosen.epochs)
    run = Run(Shelf(folder, chosen.fresh), data, amounts, tables)
    trained = {name: train(run, name) for name in chosen.networks.split(",")}
    runtimes = chosen.runtimes.split(",")
    parts = {
        "rewrite": partial(rewrites, run, trained, runtimes),
        "int8": partial(int8, run, trained),
    }
    for name in chosen.only.split(","):
        parts[name]()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cifar100", type=Path, default=Path("../shared/data/cifar100.npz"))
    parser.add_argument(
        "--cache", type=Path, help="where networks and results are kept; by default results/large"
    )
    parser.add_argument("--only", default=",".join(PARTS), help="some of: %(default)s")
    parser.add_argument("--networks", default=",".join(DRAWN), help="some of: %(default)s")
    parser.add_argument("--runtimes", default=",".join(RUNTIMES), help="some of: %(default)s")
    parser.add_argument("--epochs", type=int, help="of fine-tuning; 0 leaves it out")
    parser.add_argument("--quick", action="store_true", help="on scikit-learn's digits")
    parser.add_argument("--fresh", action="store_true", help="do everything again")
    chosen = parser.parse_args()
    lists = (
        (chosen.only, PARTS),
        (chosen.networks, tuple(DRAWN)),
        (chosen.runtimes, tuple(RUNTIMES)),
    )
    for given, known in lists:
        unknown = set(given.split(",")) - set(known)
        if unknown:
            parser.error(f"there are {', '.join(known)}; not {', '.join(sorted(unknown))}")
    if not chosen.quick and not chosen.cifar100.exists():
        parser.error(f"{chosen.cifar100} does not exist; say where CIFAR-100 is, or use --quick")
    return chosen


def train(run: Run, name: str) -> Any:
    """Train a network from random weights by labels, and keep it."""
    training = run.amounts.trainings[name]

    def work() -> Any:
        import keras

        keras.utils.set_random_seed(training.seed)
        model = DRAWN[name](run.data.x.shape[1:], run.data.classes)
        state = run.shelf.folder / f"{name}-training.keras"
        if run.shelf.fresh:
            state.unlink(missing_ok=True)
        result = train_by_labels(model, run.data, training, state)
        model.save(run.shelf.model(name))
        return {**result, "params": model.count_params()}

    return run.step(f"{name}-trained", work, **asdict(training))


# Rewritten at half of the time.


def rewrites(run: Run, trained: dict[str, Any], runtimes: Sequence[str]) -> None:
    amounts = run.amounts

    def rows() -> Iterator[list[Any]]:
        for name, original in trained.items():
            for runtime in runtimes:
                done = rewritten(run, name, runtime, original["top1"])
                row = [name, RUNTIMES[runtime], f"{original['top1']:.2f}"]
                if "reason" in done:
                    yield [*row, *[""] * 7, done["reason"]]
                    continue
                lost = [
                    f"{original['top1'] - done[key]:.2f}" if key in done else "not run"
                    for key in ("fitted", "refined", "tuned")
                ]
                macs = " → ".join(f"{value / 1e6:.1f}" for value in done["macs"])
                layers = f"{done['changed']} of {done['convolutions']}"
                spent = " → ".join(f"{value:.3f}" for value in done["ms"])
                ratio = "{:.3f} ({:.3f}–{:.3f})".format(*done["ratio"])
                yield [*row, layers, macs, *lost, spent, ratio, done["asked"]]

    images = f"{min(amounts.calibration, len(run.data.x)):,}"
    table(
        f"Rewritten for {amounts.wanted} of the time, float32, one thread: points of top-1 lost",
        [
            "network",
            "runtime",
            "original %",
            "convolutions changed",
            "M MACs",
            f"lost, fitted to {images} images",
            f"refined, {amounts.refine}",
            f"{amounts.epochs} epochs without labels",
            "ms an image",
            "time to the original's, measured",
            "asked for",
        ],
        rows(),
        folder=run.tables,
    )


def rewritten(run: Run, name: str, runtime: str, original: float) -> Any:
    """Return what a network loses, step by step, at the time that was asked for."""
    stem = f"{name}-{runtime}"
    planned = run.step(f"{stem}-planned", partial(plan, run, name, runtime), original=original)
    if "reason" in planned:
        return planned
    follows = {"original": original, "macs": planned["macs"], "refine": run.amounts.refine}
    fitted = run.step(f"{stem}-refined", partial(fit, run, name, runtime), **follows)
    follows["epochs"] = run.amounts.epochs
    tuned = {}
    if run.amounts.epochs:
        tuned = run.step(f"{stem}-tuned", partial(tune, run, name, runtime), **follows)
    times = run.step(f"{stem}-timed", partial(timed, run, name, runtime), **follows)
    return {**planned, **fitted, **tuned, **times}


def plan(run: Run, name: str, runtime: str) -> Any:
    """Plan for the share of the time that is wanted, else for the least that there is."""
    import dsconvert as ds

    model, x, target = run.load(name), run.calibration, ds.Target(runtime)
    path = run.plan_file(name, runtime)

    def planned(share: str) -> Any:
        result = ds.plan(
            model,
            calibration=x,
            goals=ds.Goals(latency=share),
            target=target,
            output=path,
            overwrite=True,
        )
        before, after = result.plan.before, result.plan.after
        assert before is not None
        assert after is not None
        return {
            "asked": share,
            "convolutions": len(result.plan.layers),
            "changed": len(result.plan.chosen),
            "macs": [before.macs, after.macs],
            "missed": result.missed,
        }

    try:
        return planned(run.amounts.wanted)
    except ds.InputError as error:
        if error.code != "target-not-reachable":
            raise
        told = error.message
    print(f"  {told}", flush=True)
    points = ds.sweep(model, calibration=x, target=target, points=4).points
    least = (points[-1].totals.cost or 0) / (points[0].totals.cost or 1)
    if least > LITTLE:
        left = ds.plan(model, calibration=x, target=target).plan.layers
        return {"reason": f"nothing to gain, at the least {least:.2f}x: {_why_left(left)}"}
    for more in (0.01, 0.03, 0.1):  # the times are measured anew, and differ a little
        try:
            return planned(f"{least + more:.2f}x")
        except ds.InputError as error:
            if error.code != "target-not-reachable":
                raise
    return {"reason": f"no plan for less time than {least:.2f}x of the original's: {told}"}


def _why_left(layers: Sequence[Any]) -> str:
    """Tell why convolutions stay: "of 52 convolutions 34 pointwise, 17 depthwise, 1 stem"."""
    codes = Counter(layer.reason.code for layer in layers if layer.reason is not None)
    reasons = ", ".join(f"{count} {code}" for code, count in codes.most_common())
    return f"of {len(layers)} convolutions {reasons}"


def fit(run: Run, name: str, runtime: str) -> Any:
    """Fit a rewrite by plan to the images without labels, and refine it on the same."""
    import dsconvert as ds
    from dsconvert.base.progress import silent
    from dsconvert.workflows.refine import refined

    original, x = ds.load(run.shelf.model(name)), run.calibration
    path = run.plan_file(name, runtime)
    made = ds.rewrite(original.model, plan=path, calibration=x, refine=0)
    fitted = top1(made.model, run.data)["top1"]
    model: Any
    model, done = refined(
        made.model, original, made.report, [x], wish=run.amounts.refine, progress=silent
    )
    model.save(run.shelf.model(f"{name}-{runtime}-refined"))
    kept = done is not None and done.kept
    return {"fitted": fitted, "refined": top1(model, run.data)["top1"], "refinement kept": kept}


def tune(run: Run, name: str, runtime: str) -> Any:
    """Fine-tune the refined network by the original's answers."""
    import dsconvert as ds

    student: Any = run.load(f"{name}-{runtime}-refined")
    settings = ds.FinetuneSettings(epochs=run.amounts.epochs)
    tuned = ds.finetune(student, run.load(name), run.data.x, settings)
    tuned.model.save(run.shelf.model(f"{name}-{runtime}-tuned"))
    found = top1(tuned.model, run.data)
    best = tuned.best_epoch
    return {"tuned": found["top1"], "low": found["low"], "high": found["high"], "best epoch": best}


def timed(run: Run, name: str, runtime: str) -> Any:
    """Measure the rewritten network's file against the original's, in turns."""
    import dsconvert as ds

    last = "tuned" if run.amounts.epochs else "refined"
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for kept in (name, f"{name}-{runtime}-{last}"):
            files.append(Path(folder) / f"{kept}{SUFFIXES[runtime]}")
            ds.export(run.load(kept), files[-1])
        options = ds.ProfileOptions(runs=300, min_seconds=2)
        before, after = ds.profile(files, options=options)
    assert before.latency is not None
    assert after.latency is not None
    one = after.comparison
    assert one is not None
    return {
        "ms": [before.latency.p50_ms, after.latency.p50_ms],
        "ratio": [one.ratio, one.low, one.high],
    }


if __name__ == "__main__":
    main()
