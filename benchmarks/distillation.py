"""VGG6 rewritten and distilled from itself, without labels, over 20,000 training images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import VGG6, accuracy, arguments, images, machine, table


def main() -> None:
    chosen = arguments(__doc__)
    print(f"Machine: {machine()}")
    table(
        f"{VGG6} after label-free distillation",
        ["T", "start", "parameters", "start %", "epochs", "top-1 %", "s per epoch"],
        tuned(chosen.models, chosen.data),
    )


def tuned(models: Path, data: Path) -> Iterator[list[Any]]:
    """Yield the data-fitted start, and the tutorials' fresh one with the same training."""
    import dsconvert as ds
    from dsconvert.converter.rewrite import rewrite
    from dsconvert.models.data.datasets import load_data
    from dsconvert.models.loading import load

    teacher: Any = load(models / VGG6).model
    train = load_data(data, split="train")
    yield [
        "",
        "original",
        f"{teacher.count_params():,}",
        "",
        "",
        f"{accuracy(teacher, data):.2f}",
        "",
    ]
    for method in ("data", "random"):
        for pairs, epochs in ((2, 3), (1, 8)):
            calibration = images(data) if method == "data" else None
            student = rewrite(teacher, calibration=calibration, method=method, pairs=pairs).model
            before = accuracy(student, data)
            result = ds.finetune(student, teacher, train, ds.FinetuneSettings(epochs=epochs))
            seconds = sum(epoch.seconds for epoch in result.history[1:]) / epochs
            yield [
                pairs,
                method,
                f"{student.count_params():,}",
                f"{before:.2f}",
                epochs,
                f"{accuracy(student, data):.2f}",
                f"{seconds:.0f}",
            ]


if __name__ == "__main__":
    main()
