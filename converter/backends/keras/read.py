"""Which layers of a Keras model are convolutions, and which of them can be rewritten."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dsconvert.base.predictor import Array

from ...core.planning.cost_model import Activation
from ...core.types import NOT_FINITE, STEM_CHANNELS, ConvSpec, Reason, Size
from .graph import FlatGraph, keras_module


@dataclass(frozen=True)
class KerasConvolution:
    """A convolution of the model.

    Attributes:
        name: The layer's name, as `FlatGraph.name_of` gives it.
        layer: The Keras layer.
        spec: Its geometry; None for what is no two-dimensional convolution.
        reason: Why it cannot be rewritten, or None if it can.
        activation: What follows it, if runtimes fuse that; else "none".
    """

    name: str
    layer: Any
    spec: ConvSpec | None
    reason: Reason | None
    activation: Activation = "none"

    @property
    def stem(self) -> bool:
        """Tell whether it reads a picture: at most four channels."""
        return self.spec is not None and self.spec.in_channels <= STEM_CHANNELS

    @property
    def absorbed(self) -> None:
        """Parameters of what goes into its pairs: a BatchNormalization stays a layer."""

    def weights(self) -> tuple[Array, Array | None]:
        """Return the kernel W, (kh, kw, C, N), and the bias, (N,), if it has one."""
        bias = np.asarray(self.layer.bias) if self.layer.use_bias else None
        return np.asarray(self.layer.kernel), bias


def read_convolutions(graph: FlatGraph) -> list[KerasConvolution]:
    """All convolutions in the order of the network, each layer once however often it is called."""
    found: dict[int, KerasConvolution] = {}
    for step in graph.steps:
        if id(step.operation) in found:
            continue
        convolution = _read(graph, step.operation)
        if convolution is not None:
            found[id(step.operation)] = convolution
    return list(found.values())


def _read(graph: FlatGraph, layer: Any) -> KerasConvolution | None:
    keras = keras_module()
    kind = type(layer).__name__
    name = graph.name_of(layer)
    if type(layer) is keras.layers.Conv2D:
        spec = conv_spec(graph, layer)
        return KerasConvolution(name, layer, spec, _refusal(layer, spec), _activation(graph, layer))
    if type(layer) is keras.layers.DepthwiseConv2D:
        reason = Reason(code="depthwise", text="it is depthwise already")
        return KerasConvolution(name, layer, None, reason)
    if isinstance(layer, keras.src.layers.convolutional.base_conv.BaseConv):
        if isinstance(layer, keras.layers.Conv2D):
            reason = Reason(code="custom", text=f"{kind} is not the stock Conv2D")
        else:
            reason = Reason(code="rank", text=f"{kind} is not two-dimensional")
        return KerasConvolution(name, layer, None, reason)
    if kind in ("SeparableConv2D", "SeparableConv1D", "DepthwiseConv1D"):
        reason = Reason(code="depthwise", text=f"{kind} is depthwise already")
        return KerasConvolution(name, layer, None, reason)
    if kind.startswith("Conv") and kind.endswith("Transpose"):
        reason = Reason(code="transpose", text=f"{kind} is a transposed convolution")
        return KerasConvolution(name, layer, None, reason)
    inner = _inner_convolutions(layer)
    if inner:
        text = f"{', '.join(inner)} inside {kind} cannot be seen from outside"
        return KerasConvolution(name, layer, None, Reason(code="hidden", text=text))
    return None


def _activation(graph: FlatGraph, layer: Any) -> Activation:
    """Return the activation inside a convolution, or after it and its BatchNormalization."""
    keras = keras_module()
    kinds: dict[Any, Activation] = {
        keras.activations.relu: "relu",
        keras.activations.relu6: "relu6",
    }
    if layer.activation is not keras.activations.linear:
        return kinds.get(layer.activation, "none")
    step = graph.steps[graph.calls(layer)[0]]
    for _ in range(2):
        readers = [s for s in graph.steps if step.writes[0] in s.reads.values()]
        if len(readers) != 1 or step.writes[0] in graph.outputs:
            return "none"
        step = readers[0]
        follows = step.operation
        if isinstance(follows, keras.layers.Activation):
            return kinds.get(follows.activation, "none")
        if isinstance(follows, keras.layers.ReLU):
            plain = not follows.negative_slope and not follows.threshold
            sizes: dict[Any, Activation] = {None: "relu", 6.0: "relu6"}
            return sizes.get(follows.max_value, "none") if plain else "none"
        if not isinstance(follows, keras.layers.BatchNormalization):
            return "none"
    return "none"


def _inner_convolutions(layer: Any) -> list[str]:
    """Names of the Conv2D layers that a wrapper or a custom layer hides."""
    keras = keras_module()
    if not isinstance(layer, keras.layers.Layer):
        return []
    return [
        inner.name
        for inner in layer._flatten_layers(include_self=False)
        if isinstance(inner, keras.layers.Conv2D)
    ]


def conv_spec(graph: FlatGraph, layer: Any) -> ConvSpec:
    """Return the geometry of a built Conv2D and of its calls."""
    kh, kw, channels, filters = layer._kernel.shape
    return ConvSpec(
        name=graph.name_of(layer),
        kernel_size=(kh, kw),
        strides=_pair(layer.strides),
        dilation=_pair(layer.dilation_rate),
        padding=layer.padding,
        in_channels=channels * layer.groups,
        out_channels=filters,
        groups=layer.groups,
        use_bias=bool(layer.use_bias),  # Keras takes whatever counts as true
        input_sizes=tuple(
            _input_size(graph, graph.steps[call], layer) for call in graph.calls(layer)
        ),
    )


def _pair(value: Any) -> Size:
    first, second = value
    return int(first), int(second)


def _input_size(graph: FlatGraph, step: Any, layer: Any) -> Size | None:
    shape = graph.symbolic[next(iter(step.reads.values()))].shape
    height, width = shape[2:] if layer.data_format == "channels_first" else shape[1:3]
    return None if height is None or width is None else (height, width)


def _refusal(layer: Any, spec: ConvSpec) -> Reason | None:
    """Tell why Keras could not hold the pairs of this convolution, or None."""
    if spec.groups != 1:
        return Reason(
            code="groups", text=f"it has {spec.groups} groups; only standard ones are rewritten"
        )
    if spec.taps == 1:
        return Reason(code="pointwise", text="its kernel is 1×1: there is nothing to separate")
    if spec.strides[0] != spec.strides[1]:
        return Reason(
            code="strides",
            text=f"its strides {spec.strides} differ and Keras' DepthwiseConv2D needs equal ones",
        )
    if getattr(layer, "quantization_mode", None):
        return Reason(code="quantized", text=f"it is quantized already ({layer.quantization_mode})")
    if not holds_its_kernel(layer):
        return Reason(code="lora", text="it carries LoRA weights; merge them first")
    finite = all(np.isfinite(weight).all() for weight in layer.get_weights())
    return None if finite else NOT_FINITE


def holds_its_kernel(layer: Any) -> bool:
    """Tell whether a layer's kernel is a variable: quantized and LoRA layers compute it."""
    return not (getattr(layer, "quantization_mode", None) or getattr(layer, "lora_enabled", False))


def is_depthwise(operation: Any) -> bool:
    """Tell whether a layer is a depthwise convolution, and no class made of one."""
    return type(operation) is keras_module().layers.DepthwiseConv2D


def is_pointwise(operation: Any) -> bool:
    """Tell whether a layer is a stock 1×1 convolution without groups."""
    keras = keras_module()
    return (
        type(operation) is keras.layers.Conv2D
        and operation.groups == 1
        and tuple(operation.kernel_size) == (1, 1)
        and holds_its_kernel(operation)
    )
