"""Whether data fit a model: what must be refused, and what only looks wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from dsconvert.converter.core.errors import InputError
from dsconvert.converter.core.layout import TOLD, choose, fits, same_samples
from dsconvert.converter.core.predictor import Array, Shape

from .datasets import Data
from .onnx_checks import variance_at_first_batch_norm

_PROBE = 256
"""Samples looked at where a few tell as much as all."""

_VARIANCE_RATIO = 30.0
"""By how much a BatchNorm's inputs may differ in variance from what it saw in training.

Feeding 0…255 for 0…1 or the other way round is a factor of 65,000; other data of the same kind
stays within about 3.
"""


def check_against(input_shapes: Sequence[Shape], data: Data) -> None:
    """Refuse data that the model cannot take.

    Args:
        input_shapes: The shapes of the model's inputs with the batch axis first; None where free.
        data: The samples.

    Raises:
        InputError: With what was got and expected for every input.
    """
    if len(input_shapes) != len(data.inputs):
        raise InputError(
            f"{data.source} gives {len(data.inputs)} inputs, the model takes {len(input_shapes)}."
        )
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
    )


def layout_notes(data: Data) -> list[str]:
    """What was done with the channel axis of the data without having been asked for."""
    done = data.preprocessing
    names = data.names if len(data.inputs) > 1 else ("",)
    notes = []
    for name, layout in zip(names, done.layout, strict=False):
        what = f"{name} of {data.source}" if name else data.source
        if done.channels_first and layout.endswith("first"):
            continue
        if layout in TOLD:
            notes.append(f"{what}: {TOLD[layout]}, as the model takes its images")
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
            )


def check_classes(data: Data, classes: int) -> None:
    """Refuse labels that are not classes 0 … ``classes`` − 1.

    Raises:
        InputError: With the range that was got.
    """
    labels = data.labels
    if labels is None or labels.ndim != 1 or labels.dtype.kind != "i":
        got = "none" if labels is None else f"{labels.dtype} of shape {_told(labels.shape)}"
        raise InputError(f"{data.source} gives no class labels: got {got}.")
    if labels.min() < 0 or labels.max() >= classes:
        raise InputError(
            f"the labels of {data.source} go from {labels.min()} to {labels.max()}, "
            f"and the model has the classes 0 to {classes - 1}."
        )


def suspicions(data: Data, model: Any = None, folder: Path | None = None) -> list[str]:
    """What looks wrong with the data but need not be.

    Args:
        data: The samples.
        model: The Keras model or the ONNX graph that they are for, to compare with what it was
            trained on; without it only the data are looked at.
        folder: Where external weights of an ONNX graph are.

    Returns:
        Sentences for the user; empty where nothing is conspicuous.
    """
    found = [
        f"{name or 'the input'} of {data.source} {fault}"
        for name, array in zip(data.names or [""] * len(data.inputs), data.inputs, strict=True)
        if (fault := _fault(array))
    ]
    if found or model is None:
        return found
    if type(model).__name__ == "ModelProto":  # known without importing onnx
        return _unlike(data, variance_at_first_batch_norm(model, folder, data.inputs))
    return [*_rescaling(data, model), *_unlike(data, _batch_norm(data, model))]


def _fault(array: Array) -> str | None:
    if not np.isfinite(array).all():
        return "has values that are not finite"
    if array.min() == array.max():
        return f"is constant: every value is {array.flat[0]}"
    if len(array) > 1 and (array[1:] == array[0]).all():
        return f"repeats one sample {len(array)} times"
    return None


def _rescaling(data: Data, model: Any) -> list[str]:
    """A model that divides its inputs by 255 itself, fed with what was divided already."""
    import keras

    from .trainee import leaf_layers

    layers = [x for x in leaf_layers(model) if not isinstance(x, keras.layers.InputLayer)]
    if not layers or not isinstance(layers[0], keras.layers.Rescaling):
        return []
    scale = float(np.max(np.abs(layers[0].scale)))
    largest = float(np.abs(data.inputs[0]).max())
    if scale > 1 / 50 or largest > 2:
        return []
    return [
        f"the model itself multiplies its input by {scale:.3g}, and {data.source} reaches only "
        f"{largest:.3g}: is it scaled twice? Without --scale the stored values are fed."
    ]


def _batch_norm(data: Data, model: Any) -> tuple[str, float] | None:
    """The variance at the first BatchNorm of a Keras model over the one it remembers."""
    import keras

    from .keras_predictor import KerasPredictor

    norms = (x for x in model.layers if isinstance(x, keras.layers.BatchNormalization))
    norm = next(norms, None)
    if norm is None or not hasattr(norm, "input"):  # shared layers have several
        return None
    trained = np.asarray(norm.moving_variance, np.float64)
    if (trained == 1).all():  # never trained
        return None
    probe = keras.Model(model.inputs, norm.input)
    (values,) = KerasPredictor(probe).predict([array[:_PROBE] for array in data.inputs])
    axes = tuple(axis for axis in range(values.ndim) if axis != norm.axis % values.ndim)
    alive = trained > 1e-3 * trained.max()
    ratios = values.var(axis=axes, dtype=np.float64)[alive] / trained[alive]
    return norm.name, float(np.median(ratios))


def _unlike(data: Data, seen: tuple[str, float] | None) -> list[str]:
    """Data whose variance at a BatchNorm is far from that of the training data."""
    if seen is None or 1 / _VARIANCE_RATIO <= seen[1] <= _VARIANCE_RATIO:
        return []
    name, ratio = seen
    return [
        f"at {name} the variance of {data.source} is {ratio:.2g} times that of the training "
        f"data: values {np.sqrt(ratio):.2g} times as large as those the model was trained on? "
        "See --scale, --mean and --std."
    ]


def _told(shape: Sequence[int | None]) -> str:
    return f"({', '.join(['n', *('any' if size is None else str(size) for size in shape[1:])])})"
