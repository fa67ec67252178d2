"""Linear pairs against MobileNet blocks, untrained and after label-free distillation.

Of MobileNet blocks three starts: afresh as a tutorial makes them, the fitted linear pair with the
statistics of its middle in the BatchNorm and a ReLU behind it, and the start that `rewrite --block
mobilenet` fits.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from common import RESNET8, VGG6, accuracy, arguments, images, machine, table

MODELS = {"vgg6": VGG6, "resnet8": RESNET8}
TRAINED_ON = 10_000
EPOCHS = 3


def main() -> None:
    chosen = arguments(__doc__, *MODELS)
    print(f"Machine: {machine()}")
    for key in chosen.only.split(","):
        table(
            f"{MODELS[key]}: T = 1, 1,000 images to fit, {TRAINED_ON:,} to train ({EPOCHS} epochs)",
            ["block", "start", "parameters", "untrained %", "trained %", "ReLU cuts at"],
            compared(chosen.models / MODELS[key], chosen.data),
        )


def compared(path: Path, data: Path) -> Iterator[list[Any]]:
    """Yield one row for each start."""
    from dsconvert.converter.rewrite import rewrite
    from dsconvert.models.data.datasets import load_data
    from dsconvert.models.loading import load
    from dsconvert.models.training.finetune import finetune
    from dsconvert.models.training.settings import FinetuneSettings

    teacher: Any = load(path).model
    calibration = images(data)
    train = load_data(data, split="train", samples=TRAINED_ON, seed=0)
    yield ["original", "", f"{teacher.count_params():,}", f"{accuracy(teacher, data):.2f}", "", ""]
    linear = rewrite(teacher, calibration=calibration, order="depthwise-first").model
    fitted = rewrite(teacher, calibration=calibration, block="mobilenet")
    fresh = rewrite(teacher, method="random", block="mobilenet").model
    starts = [
        ("linear", "fitted", linear, ""),
        ("MobileNet", "fresh", fresh, ""),
        ("MobileNet", "naive", naive(linear, fitted.model, calibration), "0"),
        ("MobileNet", "fitted", fitted.model, cuts(fitted.report)),
    ]
    for block, start, student, cut in starts:
        before = accuracy(student, data)
        settings = FinetuneSettings(epochs=EPOCHS, mixed_precision=True)
        finetune(student, teacher, train, settings)
        after = accuracy(student, data)
        params = f"{student.count_params():,}"
        yield [block, start, params, f"{before:.2f}", f"{after:.2f}", cut]


def naive(linear: Any, like: Any, calibration: Any) -> Any:
    """Blocks that are the linear pairs with a ReLU in between, behind a norm that does nothing.

    Its γ and β undo its μ and σ, which are those of the data, as the network computes them then.
    """
    import keras

    model = keras.models.clone_model(like)
    held = {layer.name: layer.get_weights() for layer in linear.layers}
    for layer in model.layers:
        if layer.name in held:
            layer.set_weights(held[layer.name])
    for norm in [x for x in model.layers if x.name not in held and x.get_weights()]:
        inner = keras.Model(model.input, norm.input)
        values = inner.predict(calibration, verbose=0)
        mean, variance = values.mean((0, 1, 2)), values.var((0, 1, 2))
        norm.set_weights([np.sqrt(variance + norm.epsilon), mean, mean, variance])
    return model


def cuts(report: Any) -> str:
    """Return the shifts that the fit chose, layer by layer."""
    notes = [layer.notes[-1] for layer in report.layers if layer.block == "mobilenet"]
    return " ".join(f"{note.split('cuts ')[1].split()[0]}σ" for note in notes)


if __name__ == "__main__":
    main()
