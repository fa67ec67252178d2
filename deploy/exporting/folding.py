"""BatchNormalization behind a sum of convolutions, folded into them before a model is exported.

Converters fold a norm that follows one convolution. Behind a sum of several, as pairs are written,
it stays: a multiplication and an addition over the whole image, which keep ONNX Runtime from its
blocked layout besides. The norm of a sum is the sum of scaled convolutions and one bias.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dsconvert.base.errors import require
from dsconvert.base.keras_weights import give_weights
from dsconvert.converter.backends.keras.read import holds_its_kernel


@dataclass(frozen=True)
class _Fold:
    """A norm and the convolutions whose sum it reads; the last one gets the bias."""

    norm: Any
    terms: tuple[Any, ...]


def fold_norms(model: Any) -> Any:
    """Return the same function without those norms: the model itself where it has none.

    Args:
        model: A functional `keras.Model` in float32; it is not changed. Norms inside nested
            models stay.
    """
    keras = require("keras", "keras", "to export Keras models")
    folds = list(_folds(keras, model))
    if not folds:
        return model
    gone = {fold.norm.name for fold in folds}
    biased = {fold.terms[-1].name for fold in folds}

    def copied(layer: Any) -> Any:
        if not isinstance(layer, keras.layers.Layer) or isinstance(layer, keras.Model):
            return layer  # without weights, or shared as it is
        config = layer.get_config()
        if layer.name in biased:
            config["use_bias"] = True
        return type(layer).from_config(config)

    def called(layer: Any, *args: Any, **kwargs: Any) -> Any:
        return args[0] if layer.name in gone else layer(*args, **kwargs)

    folded = keras.models.clone_model(model, clone_function=copied, call_function=called)
    for layer in model.layers:
        if layer.name not in gone and not isinstance(layer, keras.Model) and layer.weights:
            copy = folded.get_layer(layer.name)
            values = layer.get_weights()
            if layer.name in biased and not layer.use_bias:
                values.append(np.zeros(copy.bias.shape, np.float32))
            give_weights(copy, values)
    for fold in folds:
        _move(folded, fold)
    return folded


def _folds(keras: Any, model: Any) -> Iterator[_Fold]:
    """Yield the norms of the outer model that can go, each with its convolutions."""
    # A layer may have been called in other models as well: only this one's calls count.
    nodes = [node for level in model._nodes_by_depth.values() for node in level]
    calls = Counter(id(node.operation) for node in nodes)
    node_of = {id(node.operation): node for node in nodes}
    readers = Counter(id(tensor) for node in nodes for tensor in node.input_tensors)
    outputs = {id(tensor) for tensor in model.outputs}

    def maker(tensor: Any) -> Any:
        """Return what makes a tensor that one operation reads, if it makes nothing else."""
        operation = tensor._keras_history.operation
        alone = readers[id(tensor)] == 1 and id(tensor) not in outputs
        return operation if alone and calls[id(operation)] == 1 else None

    for norm in model.layers:
        if type(norm) is not keras.layers.BatchNormalization or calls[id(norm)] != 1:
            continue
        added = maker(node_of[id(norm)].input_tensors[0])
        if type(added) is not keras.layers.Add:
            continue
        terms = tuple(map(maker, node_of[id(added)].input_tensors))
        if all(_is_linear(keras, term, norm) for term in terms):
            yield _Fold(norm, terms)


def _is_linear(keras: Any, layer: Any, norm: Any) -> bool:
    """Tell whether a layer is a convolution of the norm's channels, without an activation."""
    if type(layer) not in (keras.layers.Conv2D, keras.layers.DepthwiseConv2D):
        return False
    if not holds_its_kernel(layer):
        return False
    axis = 1 if layer.data_format == "channels_first" else 3
    return layer.activation is keras.activations.linear and norm.axis in (axis, axis - 4)


def _move(folded: Any, fold: _Fold) -> None:
    """Scale the copies of the convolutions, and give the last one what else the norm does."""
    norm = fold.norm
    values: Mapping[str, Any] = {
        name: np.asarray(getattr(norm, name), np.float64)
        for name in ("moving_mean", "moving_variance", "gamma", "beta")
        if getattr(norm, name) is not None
    }
    gain = values.get("gamma", 1.0) / np.sqrt(values["moving_variance"] + norm.epsilon)
    shift = values.get("beta", 0.0) - values["moving_mean"] * gain
    for place, term in enumerate(fold.terms):
        copy = folded.get_layer(term.name)
        kernel = np.asarray(copy.kernel, np.float64)
        # (kh, kw, C, N), or depthwise (kh, kw, C, m), whose outputs are C·m in this order.
        scaled = kernel.reshape(*kernel.shape[:2], -1, len(gain)) * gain
        copy.kernel.assign(scaled.reshape(kernel.shape))
        if copy.use_bias:
            extra = shift if place == len(fold.terms) - 1 else 0.0
            copy.bias.assign(np.asarray(copy.bias, np.float64) * gain + extra)
