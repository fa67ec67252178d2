"""The figures of published articles about separable convolutions, beside ours.

    python benchmarks/published.py [--data cifar10.npz] [--mnist mnist.npz]
        [--cifar100 cifar100.npz] [--models FOLDER]
    python benchmarks/published.py --quick

Parts: counts, vgg, mnist, cifar100, mobilenet; cifar100 is skipped without its data. What was done
is kept in results/published and not done again unless --fresh says so, so that an interrupted run
goes on where it was. --quick runs all of it on scikit-learn's digits, in minutes: it shows that
everything works, and its accuracies say nothing about the articles' data.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from common import QUICK, RESULTS, VGG6, machine
from digits import write_digits
from published_counts import counts, mobilenet
from steps import (
    SMALL_TUNING,
    TUNING,
    Bench,
    Labelled,
    Shelf,
    answer_times,
    h5_size,
    litert_times,
    rewritten,
    step_times,
    top1,
    train,
)

PARTS = ("counts", "vgg", "mnist", "cifar100", "mobilenet")
COLUMNS = ["", "published", "ours", "on"]
FOUR_EPOCHS = 4
"""As many as two busy cores train in a quarter of an hour; the article takes up to 100."""


def main() -> None:
    chosen = arguments()
    print(f"Machine: {machine()}")
    folder = (QUICK if chosen.quick else RESULTS) / "published"
    folder.mkdir(parents=True, exist_ok=True)
    shelf = Shelf(folder, chosen.fresh)
    if chosen.quick:
        path = folder / "digits.npz"
        write_digits(path)
        cifar = mnist = cifar100 = Labelled.of("scikit-learn's digits, 16×16", path)
    else:
        cifar = Labelled.of("CIFAR-10", chosen.data)
        mnist = Labelled.of("MNIST", chosen.mnist)
        cifar100 = Labelled.of("CIFAR-100", chosen.cifar100) if chosen.cifar100.exists() else None
    models = None if chosen.quick or not chosen.models.is_dir() else chosen.models
    bench = Bench(shelf, cifar, mnist, cifar100, models, chosen.quick)
    parts: dict[str, Callable[[Bench], None]] = {
        "counts": counts,
        "vgg": vgg,
        "mnist": mnist_part,
        "cifar100": cifar100_part,
        "mobilenet": mobilenet,
    }
    for name in chosen.only.split(","):
        if name == "cifar100" and cifar100 is None:
            print(f"cifar100: skipped, there is no {chosen.cifar100}")
        else:
            parts[name](bench)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    shared = Path("../shared")
    parser.add_argument("--data", type=Path, default=shared / "data/cifar10.npz", help="CIFAR-10")
    parser.add_argument("--mnist", type=Path, default=shared / "data/mnist.npz")
    parser.add_argument(
        "--cifar100", type=Path, default=shared / "data/cifar100.npz", help="CIFAR-100, if any"
    )
    parser.add_argument(
        "--models", type=Path, default=shared / "models", help=f"a folder with {VGG6}, if any"
    )
    parser.add_argument("--only", default=",".join(PARTS), help="some of: %(default)s")
    parser.add_argument("--quick", action="store_true", help="on scikit-learn's digits")
    parser.add_argument("--fresh", action="store_true", help="do everything again")
    chosen = parser.parse_args()
    unknown = set(chosen.only.split(",")) - set(PARTS)
    if unknown:
        parser.error(f"--only knows {', '.join(PARTS)}; not {', '.join(sorted(unknown))}")
    for path in () if chosen.quick else (chosen.data, chosen.mnist):
        if not path.exists():
            parser.error(f"{path} does not exist; say where the data are, or use --quick")
    return chosen


def build(name: str, data: Labelled, *, separable: bool, seed: int = 0) -> Any:
    """Return a reference network for these images and classes."""
    import keras

    from dsconvert.models.reference import BuildSettings
    from dsconvert.models.reference import build as draw

    keras.utils.set_random_seed(seed)
    shape = data.x.shape[1:]
    return draw(name, BuildSettings(separable=separable, input_shape=shape, classes=data.classes))


def load(path: Path) -> Any:
    from dsconvert.models.loading import load as load_model

    return load_model(path).model


def trained(
    bench: Bench,
    name: str,
    network: str,
    data: Labelled,
    *,
    separable: bool,
    epochs: int,
    batch: int,
    **how: Any,
) -> Any:
    """Return a step: a network trained from random weights and kept."""

    def work() -> Any:
        model = build(network, data, separable=separable)
        result = train(model, data, epochs, batch=batch, **how)
        model.save(bench.shelf.model(name))
        return result

    config = {"data": data.told, "epochs": epochs, "batch": batch, "separable": separable, **how}
    return bench.shelf.step(name, config, work)


def tuned(
    bench: Bench,
    name: str,
    teacher: str,
    data: Labelled,
    epochs: int,
    *,
    include: tuple[str, ...] = (),
    tuning: Mapping[str, Any] = TUNING,
    **how: Any,
) -> Any:
    """Return a step: a trained network rewritten, fine-tuned and kept."""

    def work() -> Any:
        original = load(bench.shelf.model(teacher))
        model, result = rewritten(original, data, include, epochs=epochs, tuning=tuning, **how)
        model.save(bench.shelf.model(name))
        return result

    config = {"data": data.told, "epochs": epochs, "include": include, **tuning, **how}
    return bench.shelf.step(name, config, work)


# 1. The VGG-block network.


def vgg(bench: Bench) -> None:
    data, shelf = bench.cifar, bench.shelf

    def standard() -> Any:
        given = bench.models / VGG6 if bench.models else None
        if given is None or not given.exists():
            model = build("vgg-block", data, separable=False)
            result = train(model, data, bench.epochs(10), batch=64)
        else:
            model = load(given)
            result = {**top1(model, data), "params": model.count_params(), "epochs": "given"}
        model.save(shelf.model("vgg-standard"))
        return result

    full = shelf.step("vgg-standard", {"data": data.told}, standard)
    fresh = trained(
        bench,
        "vgg-separable",
        "vgg-block",
        data,
        separable=True,
        epochs=bench.epochs(10),
        batch=64,
    )
    every = ("conv0", "conv1", "conv2", "conv3", "conv4", "conv5")
    third = 1 if bench.quick else 3
    kept = tuned(bench, "vgg-rewritten", "vgg-standard", data, third)
    same = tuned(bench, "vgg-rewritten-all", "vgg-standard", data, third, include=every)
    times = shelf.step("vgg-times", {"data": data.told, "batch": 32}, lambda: _vgg_times(bench))

    def rows() -> Iterator[list[Any]]:
        on = data.told
        yield ["standard: parameters", "1,186,378", f"{full['params']:,}", ""]
        yield ["separable: parameters", "174,821", f"{fresh['params']:,}", ""]
        yield ["standard: top-1 %", "74.84, best 75.60 (10 epochs)", _percent(full), on]
        yield [
            "separable from scratch: top-1 %",
            "74.58, best 75.82 (10 epochs)",
            f"{_percent(fresh)}, best {fresh['best']:.2f} ({fresh['epochs']} epochs)",
            on,
        ]
        for one, what in ((kept, "all but the first layer"), (same, "every layer")):
            yield [
                f"trained network rewritten, {what}, {one['params']:,} parameters: top-1 %",
                "",
                f"{one['before']:.2f} untrained, {_percent(one)} after {one['epochs']} epochs",
                on,
            ]
        steps = times["step_ms"]
        yield [
            "ms a training step",
            "26 → 22",
            f"{steps['standard']:.0f} → {steps['separable']:.0f}",
            "this machine, batches of 32, float32",
        ]
        run = times["litert"]
        yield [
            "ms an image, TFLite, one thread",
            "",
            " → ".join(f"{run[name]['ms']:.3f}" for name in ("standard", "rewritten")),
            "standard → rewritten",
        ]
        yield [
            "TFLite file, KiB",
            "",
            " → ".join(f"{run[name]['bytes'] / 1024:.0f}" for name in ("standard", "rewritten")),
            "standard → rewritten",
        ]

    bench.table("1. VGG-block network", COLUMNS, rows())
    control = tuned(bench, "vgg-control", "vgg-standard", data, third, method="random")
    said = f"{_percent(control)} after {control['epochs']} epochs"
    bench.table(
        "1. VGG-block network, the control",
        ["", "ours", "on"],
        [["the same pairs and fine-tuning from random weights: top-1 %", said, data.told]],
    )


def _vgg_times(bench: Bench) -> Any:
    names = {"standard": "vgg-standard", "separable": "vgg-separable", "rewritten": "vgg-rewritten"}
    models = {name: load(bench.shelf.model(file)) for name, file in names.items()}
    return {
        "step_ms": step_times(models, bench.cifar),
        "litert": litert_times(models, bench.shelf.folder),
    }


def _percent(result: Any) -> str:
    return f"{result['top1']:.2f} ({result['low']:.1f}–{result['high']:.1f})"


# 2. The MNIST network.


def mnist_part(bench: Bench) -> None:
    data, shelf = bench.mnist, bench.shelf
    train_both = {
        separable: trained(
            bench,
            f"mnist-{'separable' if separable else 'standard'}",
            "mnist-753",
            data,
            separable=separable,
            epochs=bench.epochs(3),
            batch=32,
        )
        for separable in (False, True)
    }
    full, fresh = train_both[False], train_both[True]
    every: dict[str, Any] = {
        "include": ("conv0", "conv1", "conv2"),
        "tuning": SMALL_TUNING,
    }
    one = tuned(bench, "mnist-rewritten", "mnist-standard", data, 1, **every)
    control = tuned(bench, "mnist-control", "mnist-standard", data, 1, method="random", **every)
    times = shelf.step("mnist-times", {"data": data.told}, lambda: _mnist_times(bench))

    def rows() -> Iterator[list[Any]]:
        on = data.told
        parameters = f"{full['params']:,} → {fresh['params']:,}"
        yield ["parameters", "8,586 → 1,427", parameters, ""]
        yield ["rewritten: parameters", "", f"{one['params']:,}", ""]
        yield ["standard: top-1 %", "91.69", f"{_percent(full)}, {full['epochs']} epochs", on]
        scratch = f"{_percent(fresh)}, {fresh['epochs']} epochs"
        yield ["separable from scratch: top-1 %", "90.21", scratch, on]
        after = f"{one['before']:.2f} untrained, {_percent(one)} after one epoch"
        yield ["trained network rewritten: top-1 %", "", after, on]
        yield ["the same epoch from random weights: top-1 %", "", _percent(control), on]
        yield [
            "points lost",
            "1.48",
            f"{full['top1'] - fresh['top1']:.2f} from scratch, "
            f"{full['top1'] - one['top1']:.2f} rewritten",
            on,
        ]
        yield ["file with the optimizer's state, KB", "105.2 → 56.9", _pair(times["kb"], 1), ".h5"]
        yield [
            "s for 10,000 images",
            "1.43 → 1.11",
            _pair(times["answer_s"], 2),
            "this machine, Keras, batches of 32",
        ]
        micro = {name: 1e3 * run["ms"] for name, run in times["litert"].items()}
        yield ["µs an image", "", _pair(micro, 1), "this machine, TFLite, one thread"]

    bench.table("2. MNIST network", COLUMNS, rows())


def _pair(values: Any, digits: int) -> str:
    return f"{values['standard']:.{digits}f} → {values['separable']:.{digits}f}"


def _mnist_times(bench: Bench) -> Any:
    shelf, data = bench.shelf, bench.mnist
    models = {name: load(shelf.model(f"mnist-{name}")) for name in ("standard", "separable")}
    seconds = answer_times(models, data, 10_000)
    return {
        "kb": {name: h5_size(model, data, shelf.folder) / 1e3 for name, model in models.items()},
        "answer_s": {name: value / 1e3 for name, value in seconds.items()},
        "litert": litert_times(models, shelf.folder),
    }


# 3. The network of four blocks.


def cifar100_part(bench: Bench) -> None:
    data = bench.cifar100
    assert data is not None, "skipped without it"
    epochs = bench.epochs(FOUR_EPOCHS)
    results = {
        separable: trained(
            bench,
            f"four-{'separable' if separable else 'standard'}",
            "cifar100-four",
            data,
            separable=separable,
            epochs=epochs,
            batch=min(500, len(data.x)),
            rate=5e-4,
            decay=0.99,
        )
        for separable in (False, True)
    }
    full, fresh = results[False], results[True]
    one = tuned(bench, "four-rewritten", "four-standard", data, 1)
    times = bench.shelf.step("four-times", {"data": data.told}, lambda: _four_times(bench))

    def rows() -> Iterator[list[Any]]:
        said = "51.3 (50,000 images, 100 epochs at most)"
        for result, form, published in (
            (fresh, "separable", said),
            (full, "standard", "“close”"),
        ):
            ours = f"{_percent(result)}, {epochs} epochs"
            yield [f"{form} from scratch: top-1 %", published, ours, data.told]
        after = f"{one['before']:.2f} untrained, {_percent(one)} after one epoch"
        yield ["standard, rewritten: top-1 %", "", after, data.told]
        parameters = " → ".join(f"{result['params']:,}" for result in (full, fresh, one))
        yield ["parameters", "", parameters, "standard → separable → rewritten"]
        faster = "“much faster”"
        spent = [result["train_seconds"] / epochs for result in (full, fresh)]
        yield ["s an epoch", faster, f"{spent[0]:.0f} → {spent[1]:.0f}", "this machine, bfloat16"]
        run = " → ".join(f"{one['ms']:.3f}" for one in times.values())
        yield ["ms an image, TFLite, one thread", faster, run, " → ".join(times)]

    bench.table("3. Network of four blocks", COLUMNS, rows())


def _four_times(bench: Bench) -> Any:
    names = ("standard", "separable", "rewritten")
    models = {name: load(bench.shelf.model(f"four-{name}")) for name in names}
    return litert_times(models, bench.shelf.folder)


if __name__ == "__main__":
    main()
