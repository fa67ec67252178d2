"""Layers that training needs and inference does not, removed before a model is converted."""

from __future__ import annotations

from typing import Any

from dsconvert.base.errors import require

_FOR_TRAINING = (
    *("AugMix", "CutMix", "Equalization", "MaxNumBoundingBoxes", "MixUp", "Solarization"),
)
"""Beside those whose names begin with Rand. Others of the same base class compute in inference as
well: Resizing, CenterCrop, AutoContrast, and it may be what later versions add."""


def without_augmentation(model: Any) -> tuple[Any, tuple[str, ...]]:
    """Return the same function without layers that do nothing in inference.

    Keras 3's augmentation layers draw their random numbers in inference as well, and ONNX has no
    operator for those. RandomCrop did something in Keras 2; such files are refused when read.

    Args:
        model: A functional `keras.Model`; it is not changed. Weights are shared with it.

    Returns:
        The model, or the one given where it has no such layers, and the names of those removed.
    """
    keras = require("keras", "keras", "to export Keras models")
    names = tuple(layer.name for layer in _leaves(model) if _is_augmentation(layer))
    if not names:
        return model, ()

    def shared(layer: Any) -> Any:
        return _inner(keras, layer) if hasattr(layer, "layers") else layer

    def called(layer: Any, *args: Any, **kwargs: Any) -> Any:
        return args[0] if _only_augmentation(layer) else layer(*args, **kwargs)

    return keras.models.clone_model(model, clone_function=shared, call_function=called), names


def _inner(keras: Any, model: Any) -> Any:
    """Return a nested model without such layers; one of nothing else stays and is not called."""
    if _only_augmentation(model) or not any(map(_is_augmentation, _leaves(model))):
        return model
    if isinstance(model, keras.Sequential):
        kept = [_inner(keras, x) if hasattr(x, "layers") else x for x in model.layers]
        kept = [layer for layer in kept if not _only_augmentation(layer)]
        return keras.Sequential(
            [keras.Input(batch_shape=model.input_shape), *kept], name=model.name
        )
    return without_augmentation(model)[0]


def _only_augmentation(layer: Any) -> bool:
    if not hasattr(layer, "layers"):
        return _is_augmentation(layer)
    leaves = [leaf for leaf in _leaves(layer) if type(leaf).__name__ != "InputLayer"]
    return bool(leaves) and all(map(_is_augmentation, leaves))


def _is_augmentation(layer: Any) -> bool:
    """Tell whether a layer of Keras itself changes images in training only."""
    kinds = {kind.__name__ for kind in type(layer).__mro__}
    name = type(layer).__name__
    return (
        "BaseImagePreprocessingLayer" in kinds
        and type(layer).__module__.startswith("keras.")
        and (name.startswith("Rand") or name in _FOR_TRAINING)
    )


def _leaves(model: Any) -> list[Any]:
    found = []
    for layer in model.layers:
        found += _leaves(layer) if hasattr(layer, "layers") else [layer]
    return found
