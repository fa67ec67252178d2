"""What a rewrite costs in accuracy without any training, on two CIFAR-10 networks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import RESNET8, VGG6, accuracy, arguments, images, machine, table


def main() -> None:
    chosen = arguments(__doc__, "untrained", "budgets")
    print(f"Machine: {machine()}")
    if "untrained" in chosen.only:
        table(
            "Without training (stem kept)",
            ["model", "method", "T", "M MACs", "top-1 %", "fitted with", "s"],
            untrained(chosen.models, chosen.data),
        )
    if "budgets" in chosen.only:
        table(
            "Pairs and three-factor blocks at a budget of MACs, fitted and refined",
            ["model", "images", "M MACs", "blocks", "fitted %", "refined %", "steps", "CPU s"],
            budgets(chosen.models, chosen.data),
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


BUDGETS = (
    (RESNET8, "6.25M", 500, (1000, 100)),
    (RESNET8, "7M", 500, (1000, 100)),
    (RESNET8, "4.25M", 500, (1000, 100)),
    (VGG6, "19.84M", 500, (1000, 100)),
    (VGG6, "37.87M", 500, (1000, 100)),
)
"""A model, a budget of MACs, steps of refinement, and numbers of unlabelled images."""


def budgets(models: Path, data: Path) -> Iterator[list[Any]]:
    """No labels. The residual network is planned, VGG6 gets the same share in every layer."""
    import dsconvert as ds
    from dsconvert.base.progress import silent
    from dsconvert.converter.core.planning.goals import Goals
    from dsconvert.converter.core.planning.limits import parse_limit
    from dsconvert.converter.plan import search_space
    from dsconvert.converter.rewrite import rewrite
    from dsconvert.workflows.refine import refined

    for name, budget, steps, counts in BUDGETS:
        opened = ds.load(models / name)
        for count in counts:
            x = images(data, count)
            plan = None
            if name == RESNET8:
                plan = search_space(opened.model, calibration=x).plan(Goals(macs=budget))
            share = None if plan else parse_limit(budget, "macs")
            block = None if plan else "auto"
            made = rewrite(opened.model, calibration=x, plan=plan, macs=share, block=block)
            fitted, started = accuracy(made.model, data), time.process_time()
            model, done = refined(
                made.model, opened, made.report, [x], wish=f"{steps}steps", progress=silent
            )
            spent = time.process_time() - started
            kinds = [row.block for row in made.report.layers if row.block]
            yield [
                name,
                count,
                f"{(made.report.macs_after or 0) / 1e6:.2f}",
                f"{kinds.count('three-factor')} of {len(kinds)}",
                f"{fitted:.2f}",
                f"{accuracy(model, data):.2f}" if done and done.kept else "not kept",
                steps,
                f"{spent:.0f}",
            ]


if __name__ == "__main__":
    main()
