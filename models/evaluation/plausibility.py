"""Signs that images are not scaled as a model expects them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dsconvert.base.predictor import Array

from ..data.datasets import Data
from .norm_convergence import is_unconverged
from .onnx_plausibility import variance_at_first_batch_norm

_PROBE = 256
"""Samples looked at where a few tell as much as all."""


_VARIANCE_RATIO = 30.0
"""By how much a BatchNorm's inputs may differ in variance from what it saw in training.

Feeding 0…255 for 0…1 or the other way round is a factor of 65,000; other data of the same kind
stays within about 3.
"""


def suspicions(data: Data, model: Any = None, folder: Path | None = None) -> list[str]:
    """Return what looks wrong with the data but need not be.

    Args:
        data: The samples.
        model: The Keras model or the ONNX graph that they are for, to compare with what it was
            trained on; without it only the data are looked at.
        folder: Where external weights of an ONNX graph are.

    Returns:
        Sentences for the user; empty where nothing is conspicuous.
    """
    if data.on_disk:
        data = data.take(slice(_PROBE)).loaded()
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
    if array.size == 0:
        return f"has no values: its shape is {array.shape}"
    if not np.isfinite(array).all():
        return "has values that are not finite"
    if array.min() == array.max():
        return f"is constant: every value is {array.flat[0]}"
    if len(array) > 1 and (array[1:] == array[0]).all():
        return f"repeats one sample {len(array)} times"
    return None


def _rescaling(data: Data, model: Any) -> list[str]:
    """Return a model that divides its inputs by 255 itself, fed with what was divided already."""
    import keras

    from .keras_predictor import leaf_layers

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
    """Return the variance at the first BatchNorm of a Keras model over the one it remembers."""
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
    if is_unconverged(values, axes, np.asarray(norm.moving_mean, np.float64), trained):
        return None
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
