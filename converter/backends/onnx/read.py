"""Which nodes of an ONNX graph are convolutions, and which of them can be rewritten."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dsconvert.base.predictor import Array
from dsconvert.formats.onnx.constants import computed_by, constant_of, constant_shape, is_finite
from dsconvert.formats.onnx.graph import (
    OnnxGraph,
    attributes,
    fresh_name,
    is_op,
    key,
)
from dsconvert.formats.onnx.nodes import inner_graphs
from dsconvert.formats.onnx.tensors import DOMAINS

from ...core.planning.cost_model import Activation
from ...core.types import NOT_FINITE, STEM_CHANNELS, ConvSpec, Padding, Reason, Size
from .channel_affine import Tail, tail_after

if TYPE_CHECKING:
    from onnx import NodeProto

_QUANTIZED = ("ConvInteger", "QLinearConv")
_AS_FLOAT = ": --dequantize reads the float layer that it stands for"
_CUSTOM = re.compile("Conv(?!er)")
"""What convolutions of other domains are called, such as FusedConv; but not Convert."""
_PADDINGS: dict[str, Padding] = {
    "VALID": "valid",
    "SAME_UPPER": "same",
    "SAME_LOWER": "same-lower",
}


@dataclass(frozen=True)
class OnnxConvolution:
    """A convolution of the graph.

    Attributes:
        name: The node's name, as `OnnxGraph.names` has it.
        node: The node.
        graph: The graph that it stands in.
        spec: Its geometry; None for what is no two-dimensional convolution.
        reason: Why it cannot be rewritten, or None if it can.
        activation: What follows it, if runtimes fuse that; else "none".
        absorbed: Parameters of the tail that goes into its pairs; None if it has none.
    """

    name: str
    node: NodeProto
    graph: OnnxGraph
    spec: ConvSpec | None
    reason: Reason | None
    activation: Activation = "none"
    absorbed: int | None = None

    @property
    def stem(self) -> bool:
        """Tell whether it reads a picture: at most four channels."""
        return self.spec is not None and self.spec.in_channels <= STEM_CHANNELS

    def weights(self) -> tuple[Array, Array | None]:
        """Return the kernel W, (kh, kw, C, N), and the bias, (N,), in float32 at least."""
        return conv_weights(self.graph, self.node)


def read_convolutions(graph: OnnxGraph) -> list[OnnxConvolution]:
    """All convolutions in the order of the graph, those that cannot be rewritten included."""
    found = []
    local = {(function.domain, function.name) for function in graph.model.functions}
    taken = set(graph.names.values())

    def left(called: str, node: NodeProto, code: str, where: str) -> OnnxConvolution:
        reason = Reason(code=code, text=f"it is inside {where}, which is kept whole")
        return OnnxConvolution(fresh_name(called, taken), node, graph, None, reason)

    for node in graph.nodes:
        name = graph.names[key(node)]
        if is_convolution(node) and (node.domain, node.op_type) not in local:
            spec = conv_spec(graph, node)
            reason = _refusal(graph, node, spec)
            tail = None if spec is None else tail_after(graph, node, spec.out_channels)
            activation: Activation = "none"
            if spec is not None:
                activation = _activation(graph, node, tail)
            absorbed = None if tail is None else _params_of(graph, tail)
            found.append(OnnxConvolution(name, node, graph, spec, reason, activation, absorbed))
        for path, inner in _inner_convolutions(node):
            found.append(left(f"{name}/{path}", inner, "subgraph", f"{name} ({node.op_type})"))
    for function in graph.model.functions:
        where = f"the function {function.name}"
        for node in function.node:
            called = f"{function.name}/{node.name or key(node)}"
            if is_convolution(node) and (node.domain, node.op_type) not in local:
                found.append(left(called, node, "function", where))
            for path, inner in _inner_convolutions(node):
                found.append(left(f"{called}/{path}", inner, "function", where))
    return found


def main_convolutions(graph: OnnxGraph) -> dict[str, OnnxConvolution]:
    """The convolutions of the main graph by their value; inner graphs may use its names again."""
    elsewhere = ("subgraph", "function")
    return {
        key(found.node): found
        for found in read_convolutions(graph)
        if found.reason is None or found.reason.code not in elsewhere
    }


def _params_of(graph: OnnxGraph, tail: Tail) -> int:
    """Tell how many floats only the tail's nodes read."""
    nodes = {key(node) for node in tail.nodes}
    names = {name for node in tail.nodes for name in node.input}
    own = [name for name in names if nodes.issuperset(map(key, graph.readers.get(name, [])))]
    values = [constant_of(graph, name) for name in own if name not in graph.outputs]
    return sum(value.size for value in values if value is not None and value.dtype.kind == "f")


def _activation(graph: OnnxGraph, node: NodeProto, tail: Tail | None) -> Activation:
    """Return the activation after a convolution and what is folded into it."""
    follows = graph.only_reader(key(node) if tail is None else tail.output)
    if follows is None or not is_op(follows, "Relu", "Clip"):
        return "none"
    if follows.op_type == "Relu":
        return "relu"
    given = attributes(follows)
    bounds = [given.get("min"), given.get("max")]  # before opset 11
    for place, name in enumerate(follows.input[1:3]):
        if name:
            value = constant_of(graph, name)
            bounds[place] = math.nan if value is None else float(value)
    sizes: dict[float | None, Activation] = {None: "relu", 6.0: "relu6"}
    return sizes.get(bounds[1], "none") if bounds[0] == 0 else "none"


def is_convolution(node: NodeProto) -> bool:
    """Tell whether a node is a convolution of any kind and domain."""
    if is_op(node, "Conv", "ConvTranspose", "DeformConv", *_QUANTIZED):
        return True
    return node.domain not in DOMAINS and _CUSTOM.search(node.op_type) is not None


def _inner_convolutions(node: NodeProto) -> Iterator[tuple[str, NodeProto]]:
    """Yield the convolutions inside a node's graphs, each with the names that lead to it."""
    for graph in inner_graphs(node):
        for inner in graph.node:
            name = inner.name or key(inner)
            if is_convolution(inner):
                yield name, inner
            for path, nested in _inner_convolutions(inner):
                yield f"{name}/{path}", nested


def kernel_shape(graph: OnnxGraph, node: NodeProto) -> tuple[int, ...] | None:
    """(N, C / groups, k, ...) of a node's weights if they are constant or of a known shape."""
    name = node.input[1]
    constant = constant_shape(graph, name)
    if constant is not None:
        return constant
    shape = graph.shapes.get(name)
    return None if shape is None or None in shape else tuple(size or 0 for size in shape)


def conv_spec(graph: OnnxGraph, node: NodeProto) -> ConvSpec | None:
    """Return the geometry of a Conv node with a two-dimensional kernel of known size."""
    shape = kernel_shape(graph, node) if is_op(node, "Conv") else None
    if shape is None or len(shape) != 4:
        return None
    given = attributes(node)
    groups = int(given.get("group", 1))
    size = graph.shapes.get(node.input[0], (None, None, None, None))[2:]
    known = len(size) == 2 and None not in size
    return ConvSpec(
        name=graph.names.get(key(node), key(node)),
        kernel_size=shape[2:],
        strides=_pair(given.get("strides", (1, 1))),
        dilation=_pair(given.get("dilations", (1, 1))),
        padding=_padding(given),
        in_channels=shape[1] * groups,
        out_channels=shape[0],
        groups=groups,
        use_bias=len(node.input) > 2 and bool(node.input[2]),
        input_sizes=((int(size[0] or 0), int(size[1] or 0)) if known else None,),
    )


def conv_weights(graph: OnnxGraph, node: NodeProto) -> tuple[Array, Array | None]:
    """The kernel W, (kh, kw, C, N), and the bias, (N,), of a Conv node, in float32 at least."""
    kernel = constant_of(graph, node.input[1])
    assert kernel is not None, "only constant kernels are read"
    bias = constant_of(graph, node.input[2]) if len(node.input) > 2 and node.input[2] else None
    return _widened(kernel.transpose(2, 3, 1, 0)), None if bias is None else _widened(bias)


def _widened(array: Array) -> Array:
    return np.asarray(array, np.promote_types(array.dtype, np.float32))


def _pair(values: tuple[int, ...]) -> Size:
    first, second = values
    return int(first), int(second)


def _padding(given: dict[str, Any]) -> Padding:
    if given.get("auto_pad") in _PADDINGS:
        return _PADDINGS[given["auto_pad"]]
    pads = given.get("pads", ())
    if not any(pads):
        return "valid"
    top, left, bottom, right = map(int, pads)
    return (top, bottom), (left, right)


def _refusal(graph: OnnxGraph, node: NodeProto, spec: ConvSpec | None) -> Reason | None:
    """Tell why a convolution cannot be rewritten, or None."""
    kind = node.op_type
    if kind in _QUANTIZED:
        return Reason(code="quantized", text=f"{kind} is quantized already{_AS_FLOAT}")
    if node.domain not in DOMAINS:
        text = f"{node.domain}.{kind} is no standard operator; rewrite the model it was made from"
        return Reason(code="custom", text=text)
    if kind == "ConvTranspose":
        return Reason(code="transpose", text="it is a transposed convolution")
    if kind == "DeformConv":
        return Reason(code="deformable", text="the data move its taps, which no pair follows")
    computed = _computed(graph, node)
    if computed is not None:
        return computed
    if spec is None:
        rank = len(kernel_shape(graph, node) or (0, 0)) - 2
        dimensions = "one dimension" if rank == 1 else f"{rank} dimensions"
        return Reason(code="rank", text=f"its kernel has {dimensions} instead of two")
    if spec.groups == spec.in_channels and spec.groups > 1:
        return Reason(code="depthwise", text="it is depthwise already")
    if spec.groups != 1:
        text = f"it has {spec.groups} groups; only standard ones are rewritten"
        return Reason(code="groups", text=text)
    if spec.taps == 1:
        return Reason(code="pointwise", text="its kernel is 1×1: there is nothing to separate")
    if not any(node is other for other in graph.depending_on_data):
        return Reason(code="constant", text="what it reads does not depend on the model's inputs")
    if graph.needed.isdisjoint(node.output):
        return Reason(code="unused", text="no output of the model depends on its values")
    finite = all(is_finite(graph, name) for name in node.input[1:] if name)
    return None if finite else NOT_FINITE


def _computed(graph: OnnxGraph, node: NodeProto) -> Reason | None:
    """Tell why its weights are not there to be factorised, if so."""
    for place, what in ((1, "weights"), (2, "bias")):
        name = node.input[place] if len(node.input) > place else ""
        if name in graph.sparse:
            return Reason(code="sparse", text=f"its {what} are stored as a sparse tensor")
        if not name or name in graph.stored:
            continue
        maker = graph.makers.get(name)
        if maker is None:
            return Reason(code="computed", text=f"its {what} are an input of the model")
        makers = computed_by(graph, name) if name in graph.fixed else [maker]
        if any(is_op(one, "DequantizeLinear") for one in makers):
            read = f"its {what} pass through DequantizeLinear"
            text = f"it is quantized already ({read}){_AS_FLOAT}"
            return Reason(code="quantized", text=text)
        if constant_of(graph, name) is not None:
            continue
        text = f"its {what} are computed by {graph.names[key(maker)]} ({maker.op_type})"
        return Reason(code="computed", text=text)
    return None
