"""What a rewrite costs in accuracy without any training, on two CIFAR-10 networks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import RESNET8, VGG6, accuracy, arguments, images, machine, table


def main() -> None:
    chosen = arguments(__doc__)
    print(f"Machine: {machine()}")
    table(
        "Without training (stem kept)",
        ["model", "method", "T", "M MACs", "top-1 %", "fitted with", "s"],
        untrained(chosen.models, chosen.data),
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


if __name__ == "__main__":
    main()
