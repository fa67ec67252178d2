"""What a rewrite costs in accuracy, before and after fine-tuning, on two CIFAR-10 networks."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from common import RESNET8, VGG6, accuracy, arguments, images, machine, table


def main() -> None:
    chosen = arguments(__doc__)
    print(f"Machine: {machine()}")
    untrained(chosen.models, chosen.data)
    tuned(chosen.models, chosen.data)


def untrained(models: Path, data: Path) -> None:
    """No labels and no training: 1,000 images for the data method, none for the others."""
    from dsconvert.converter import rewrite
    from dsconvert.models import load

    rows = []
    for name in (RESNET8, VGG6):
        model = load(models / name).model
        rows.append([name, "original", "", "", f"{accuracy(model, data):.2f}", "", ""])
        for pairs in (1, 2, 3):
            for method in ("random", "svd", "data"):
                calibration = images(data) if method == "data" else None
                started = time.perf_counter()
                result = rewrite(model, calibration=calibration, method=method, pairs=pairs)
                rows.append(
                    [
                        name,
                        method,
                        pairs,
                        f"{(result.report.macs_after or 0) / 1e6:.2f}",
                        f"{accuracy(result.model, data):.2f}",
                        result.report.trials[0].recipe if result.report.trials else "",
                        f"{time.perf_counter() - started:.0f}",
                    ]
                )
    table(
        "Without training (stem kept)",
        ["model", "method", "T", "M MACs", "top-1 %", "fitted with", "s"],
        rows,
    )


def tuned(models: Path, data: Path) -> None:
    """VGG6 distilled from itself, without labels, over 20,000 training images."""
    from dsconvert.converter import rewrite
    from dsconvert.models import FinetuneSettings, finetune, load, load_data

    teacher: Any = load(models / VGG6).model
    train = load_data(data, split="train")
    rows = []
    for pairs, epochs in ((2, 3), (1, 8)):
        for method in ("random", "data"):
            calibration = images(data) if method == "data" else None
            student = rewrite(teacher, calibration=calibration, method=method, pairs=pairs).model
            before = accuracy(student, data)
            settings = FinetuneSettings(epochs=epochs, mixed_precision=True)
            result = finetune(student, teacher, train, settings)
            seconds = sum(epoch.seconds for epoch in result.history[1:]) / epochs
            rows.append(
                [
                    pairs,
                    method,
                    f"{student.count_params():,}",
                    f"{before:.2f}",
                    epochs,
                    f"{accuracy(student, data):.2f}",
                    f"{seconds:.0f}",
                ]
            )
    table(
        f"{VGG6} after label-free distillation (original {accuracy(teacher, data):.2f} %)",
        ["T", "start", "parameters", "start %", "epochs", "top-1 %", "s per epoch"],
        rows,
    )


if __name__ == "__main__":
    main()
