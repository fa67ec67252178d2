"""MACs and kernels of a whole Keras model."""

from __future__ import annotations

from math import prod
from typing import Any

from .graph import FlatGraph, Step, flatten, keras_module


def model_macs(model: Any, *, dense_only: bool = False) -> int | None:
    """Multiply-accumulates of one image through convolutions and dense layers.

    Args:
        model: A functional or Sequential model.
        dense_only: Count dense layers alone.

    Returns:
        None where the model leaves the image's size free.
    """
    graph = flatten(model)
    total = 0
    for step in graph.steps:
        if dense_only and not isinstance(step.operation, keras_module().layers.Dense):
            continue
        macs = _step_macs(graph, step)
        if macs is None:
            return None
        total += macs
    return total


def model_kernels(model: Any) -> int:
    """Weights of convolutions and dense layers, without biases and norms; shared ones once."""
    steps = flatten(model).steps
    kernels = {id(kernel): kernel for step in steps for kernel in _kernels(step.operation)}
    return sum(prod(kernel.shape) for kernel in kernels.values())


def _kernels(layer: Any) -> list[Any]:
    """Return what a convolution or a dense layer multiplies with; nothing for other layers."""
    keras = keras_module()
    convolution = keras.src.layers.convolutional
    if isinstance(layer, keras.layers.Dense):
        return [layer.kernel]
    if isinstance(layer, convolution.base_conv_transpose.BaseConvTranspose):
        return [layer.kernel]
    if isinstance(
        layer,
        convolution.base_conv.BaseConv
        | convolution.base_depthwise_conv.BaseDepthwiseConv
        | convolution.base_separable_conv.BaseSeparableConv,
    ):
        trainable = [w for w in layer.trainable_weights if len(w.shape) > 1]
        return trainable or [w for w in layer.weights if len(w.shape) > 1]
    return []


def _step_macs(graph: FlatGraph, step: Step) -> int | None:
    """Return each weight of a convolution is used once per output position, so count those."""
    layer = step.operation
    kernels = _kernels(layer)
    if not kernels:
        return 0
    keras = keras_module()
    transposed = keras.src.layers.convolutional.base_conv_transpose.BaseConvTranspose
    if isinstance(layer, keras.layers.Dense):
        positions = graph.symbolic[step.writes[0]].shape[1:-1]
    else:
        # Transposed: each weight is used once per *input* position.
        value = _read(step) if isinstance(layer, transposed) else step.writes[0]
        positions = _positions(graph.symbolic[value].shape, layer.data_format)
    weights = sum(prod(kernel.shape) for kernel in kernels)
    return None if None in positions else prod(positions) * weights


def _read(step: Step) -> int:
    return next(iter(step.reads.values()))


def _positions(shape: tuple[int | None, ...], data_format: str) -> Any:
    return shape[2:] if data_format == "channels_first" else shape[1:-1]
