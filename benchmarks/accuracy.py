"""What a rewrite costs in accuracy on two CIFAR-10 networks: fitted, refined, and in int8.

One row of several: `--only vgg6-19.84M --images 100 --seeds 0`.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from common import RESNET8, VGG6, accuracy, arguments, images, machine, table


class Budget(NamedTuple):
    """What one row is about.

    Attributes:
        model: Below the folder of models.
        macs: The budget.
        steps: Of the refinement.
    """

    model: str
    macs: str
    steps: int


class Fitted(NamedTuple):
    """A rewritten network.

    Attributes:
        opened: The file of the original.
        images: What it was fitted to, (n, H, W, C).
        made: The network with its report.
    """

    opened: Any
    images: Any
    made: Any


BUDGETS = {
    "resnet8-6.25M": Budget(RESNET8, "6.25M", 1000),
    "resnet8-7M": Budget(RESNET8, "7M", 1000),
    "resnet8-4.25M": Budget(RESNET8, "4.25M", 1000),
    "vgg6-19.84M": Budget(VGG6, "19.84M", 500),
    "vgg6-37.87M": Budget(VGG6, "37.87M", 500),
}


def main() -> None:
    chosen = arguments(__doc__, "untrained", *BUDGETS, images="1000,100", seeds="0,1")
    print(f"Machine: {machine()}")
    parts = chosen.only.split(",")
    if "untrained" in parts:
        table(
            "Without training (stem kept)",
            ["model", "method", "T", "M MACs", "top-1 %", "fitted with", "s"],
            untrained(chosen.models, chosen.data),
        )
    if any(part in BUDGETS for part in parts):
        columns = ["model", "images", "seed", "M MACs", "blocks", "fitted %", "refined %", "steps"]
        table(
            "Pairs and three-factor blocks at a budget of MACs, fitted and refined",
            [*columns, "CPU s", "int8 .tflite %", "int8 .onnx %"],
            (
                row(BUDGETS[part], int(count), int(seed), chosen.models, chosen.data)
                for part in parts
                if part in BUDGETS
                for count in chosen.images.split(",")
                for seed in chosen.seeds.split(",")
            ),
        )


def untrained(models: Path, data: Path) -> Iterator[list[Any]]:
    """No labels and no training: 1,000 images for the data method, none for the others."""
    from dsconvert.converter.rewrite import rewrite
    from dsconvert.models.loading import load

    for name in (RESNET8, VGG6):
        model = load(models / name).model
        yield [name, "original", "", "", f"{accuracy(model, data):.2f}", "", ""]
        for pairs in (1, 2, 3):
            for method in ("random", "svd", "data"):
                calibration = images(data) if method == "data" else None
                started = time.perf_counter()
                result = rewrite(model, calibration=calibration, method=method, pairs=pairs)
                yield [
                    name,
                    method,
                    pairs,
                    f"{(result.report.macs_after or 0) / 1e6:.2f}",
                    f"{accuracy(result.model, data):.2f}",
                    result.report.trials[0].strategy if result.report.trials else "",
                    f"{time.perf_counter() - started:.0f}",
                ]


def fitted_network(budget: Budget, count: int, seed: int, models: Path, data: Path) -> Fitted:
    """Rewrite without labels: the residual network is planned, VGG6 gets equal shares.

    Args:
        budget: The network and its budget.
        count: How many unlabelled images.
        seed: Of their draw and of the fits.
        models: Where the models are.
        data: Where the images are.
    """
    import dsconvert as ds
    from dsconvert.converter.core.planning.goals import Goals
    from dsconvert.converter.core.planning.limits import parse_limit
    from dsconvert.converter.plan import search_space
    from dsconvert.converter.rewrite import rewrite

    opened = ds.load(models / budget.model)
    x = images(data, count, seed)
    if budget.model == RESNET8:
        space = search_space(opened.model, calibration=x, seed=seed)
        plan = space.plan(Goals(macs=budget.macs))
        made = rewrite(opened.model, calibration=x, plan=plan, seed=seed)
    else:
        share = parse_limit(budget.macs, "macs")
        made = rewrite(opened.model, calibration=x, macs=share, block="auto", seed=seed)
    return Fitted(opened, x, made)


def row(budget: Budget, count: int, seed: int, models: Path, data: Path) -> list[Any]:
    """Measure one network as fitted, refined and in int8; see `fitted_network`."""
    from dsconvert.base.progress import silent
    from dsconvert.workflows.refine import refined

    opened, x, made = fitted_network(budget, count, seed, models, data)
    fitted, started = accuracy(made.model, data), time.process_time()
    wish = f"{budget.steps}steps"
    model, done = refined(
        made.model, opened, made.report, [x], wish=wish, seed=seed, progress=silent
    )
    spent = time.process_time() - started
    kinds = [layer.block for layer in made.report.layers if layer.block]
    return [
        budget.model,
        count,
        seed,
        f"{(made.report.macs_after or 0) / 1e6:.2f}",
        f"{kinds.count('three-factor')} of {len(kinds)}",
        f"{fitted:.2f}",
        f"{accuracy(model, data):.2f}" if done and done.kept else "not kept",
        budget.steps,
        f"{spent:.0f}",
        *(as_int8(model, x, data, kind) for kind in ("tflite", "onnx")),
    ]


def as_int8(model: Any, calibration: Any, data: Path, kind: str) -> str:
    """Export a network in int8 as a user would, and return the file's top-1 in percent."""
    import dsconvert as ds

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"int8.{kind}"
        try:
            ds.export(model, file, ds.ExportOptions(quantize="int8"), calibration=calibration)
        except ds.DsconvertError as error:
            return f"refused: {error.message[:80]}"
        return f"{accuracy(file, data):.2f}"


if __name__ == "__main__":
    main()
