"""Whether data fit a model: what must be refused, and what only looks wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from dsconvert.base.errors import InputError
from dsconvert.base.image_layout import choose, fits, same_samples, told_layout
from dsconvert.base.predictor import Array, Shape

from .datasets import Data


def check_against(input_shapes: Sequence[Shape], data: Data) -> None:
    """Refuse data that the model cannot take.

    Args:
        input_shapes: The shapes of the model's inputs with the batch axis first; None where free.
        data: The samples.

    Raises:
        InputError: With what was got and expected for every input.
    """
    check_number(input_shapes, data)
    names = data.names or tuple(f"input {number}" for number in range(len(input_shapes)))
    pairs = list(zip(names, data.inputs, input_shapes, strict=True))
    wrong = [
        f"{name}: got {_told(array.shape)}, expected {_told(expected)}"
        for name, array, expected in pairs
        if not fits(array.shape, expected)
    ]
    if not wrong:
        return
    turned = any(
        choose(array.shape, expected, channels_first=False) != "as stored"
        for _, array, expected in pairs
    )
    raise InputError(
        f"the shape of {data.source} does not fit the model: {'; '.join(wrong)}.",
        "Move the channel axis: load_data does with the model's input_shapes, and "
        "data.laid_out(input_shapes)."
        if turned
        else "Give the data in the shape that the model was trained with.",
        code="shape-mismatch",
    )


def check_number(input_shapes: Sequence[Shape], data: Data) -> None:
    """Refuse data of more or fewer inputs than the model has.

    Raises:
        InputError: With both numbers.
    """
    if len(input_shapes) != len(data.inputs):
        raise InputError(
            f"{data.source} gives {len(data.inputs)} inputs, the model takes {len(input_shapes)}.",
            code="inputs-missing",
        )


def layout_notes(data: Data) -> list[str]:
    """Return what was done with the channel axis of the data without having been asked for."""
    done = data.preprocessing
    names = data.names if len(data.inputs) > 1 else ("",)
    notes = []
    for name, layout, array in zip(names, done.layout, data.inputs, strict=False):
        what = f"{name} of {data.source}" if name else data.source
        if done.channels_first and layout.endswith("first"):
            continue
        if layout != "as stored":
            notes.append(
                f"{what}: {told_layout(layout, len(array.shape))}, as the model takes them"
            )
    if done.channels_first and not any(layout.endswith("first") for layout in done.layout):
        taken = " and ".join(_told(array.shape) for array in data.inputs)
        notes.append(f"{data.source}: not moved to channels first, the model takes {taken}")
    return notes


def check_same_inputs(shapes: Mapping[str, Sequence[Shape]]) -> None:
    """Refuse models that cannot be fed the same samples, wherever their channel axis is.

    Args:
        shapes: The shapes of each model's inputs with the batch axis first, by the model's name;
            the others are held against the first.

    Raises:
        InputError: With the names and shapes of two that differ.
    """
    (first, expected), *others = shapes.items()
    for name, got in others:
        same = len(got) == len(expected) and all(
            same_samples(one, other) for one, other in zip(got, expected, strict=True)
        )
        if not same:
            told = [" and ".join(map(_told, inputs)) for inputs in (expected, got)]
            raise InputError(
                f"the models take different inputs: {first} takes {told[0]}, {name} {told[1]}.",
                "Compare models that were made from one another.",
                code="models-differ",
            )


def check_classes(labels: Array | None, source: str, classes: int) -> None:
    """Refuse labels that are not classes 0 … ``classes`` − 1.

    Raises:
        InputError: With the range that was got.
    """
    if labels is None or labels.ndim != 1 or labels.dtype.kind not in "iu":
        got = "none" if labels is None else f"{labels.dtype} of shape {_told(labels.shape)}"
        if labels is not None and labels.ndim == 1:
            got = next((f"{one:g}" for one in labels if one != np.floor(one)), got)
        raise InputError(
            f"{source} gives no class labels: got {got}.",
            "Give one whole number for each sample, or one-hot rows (n, classes).",
            code="no-class-labels",
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise InputError(
            f"the labels of {source} go from {labels.min()} to {labels.max()}, "
            f"and the model has the classes 0 to {classes - 1}.",
            "Classes are counted from 0; leave out samples of classes that the model has not.",
            code="labels-out-of-range",
        )


def _told(shape: Sequence[int | None]) -> str:
    if not shape:
        return "one number"
    return f"({', '.join(['n', *('any' if size is None else str(size) for size in shape[1:])])})"
