"""MACs of a whole Keras model."""

from __future__ import annotations

from math import prod
from typing import Any

from .graph import FlatGraph, Step, flatten, keras_module


def model_macs(model: Any) -> int | None:
    """Multiply-accumulates of one image through convolutions and dense layers.

    Returns:
        None where the model leaves the image's size free.
    """
    graph = flatten(model)
    total = 0
    for step in graph.steps:
        macs = _step_macs(graph, step)
        if macs is None:
            return None
        total += macs
    return total


def _step_macs(graph: FlatGraph, step: Step) -> int | None:
    """Each weight of a convolution is used once per output position, so count those."""
    keras = keras_module()
    layer = step.operation
    convolution = keras.src.layers.convolutional
    if isinstance(layer, keras.layers.Dense):
        positions = graph.symbolic[step.writes[0]].shape[1:-1]
        weights = prod(layer.kernel.shape)
    elif isinstance(layer, convolution.base_conv_transpose.BaseConvTranspose):
        # Transposed: each weight is used once per *input* position.
        positions = _positions(graph.symbolic[_read(step)].shape, layer.data_format)
        weights = prod(layer.kernel.shape)
    elif isinstance(
        layer,
        convolution.base_conv.BaseConv
        | convolution.base_depthwise_conv.BaseDepthwiseConv
        | convolution.base_separable_conv.BaseSeparableConv,
    ):
        positions = _positions(graph.symbolic[step.writes[0]].shape, layer.data_format)
        weights = sum(prod(w.shape) for w in layer.trainable_weights if len(w.shape) > 1) or sum(
            prod(w.shape) for w in layer.weights if len(w.shape) > 1
        )
    else:
        return 0
    return None if None in positions else prod(positions) * weights


def _read(step: Step) -> int:
    return next(iter(step.reads.values()))


def _positions(shape: tuple[int | None, ...], data_format: str) -> Any:
    return shape[2:] if data_format == "channels_first" else shape[1:-1]
