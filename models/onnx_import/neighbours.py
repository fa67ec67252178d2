"""What stands around a node: its bias, the sign of what it reads, where its weights are stored."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dsconvert.formats.onnx.constants import constant_of

from .graph import Graph, Node
from .weights import MOVES, Arrange, moved_by

_NON_NEGATIVE = frozenset({"Relu", "Sigmoid", "HardSigmoid", "Softmax", "Softplus", "Abs", "Exp"})
_KEEPS_SIGN = frozenset(
    {"MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "Identity", "Dropout"}
    | {"Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "DepthToSpace", "Slice", "Split"}
)


def bias_of(
    graph: Graph, node: Node, shape: Sequence[int], channel_axis: int
) -> tuple[Node, int] | None:
    """The Add behind a node that gives it one stored number per channel, and which input that is.

    Args:
        graph: The graph.
        node: A convolution or matrix product without a bias of its own.
        shape: The shape of its output in ONNX axes.
        channel_axis: The axis of the channels in it.
    """
    name = node.outputs[0]
    readers = graph.consumers.get(name, ())
    if len(readers) != 1 or readers[0].op != "Add" or name in graph.outputs:
        return None
    add = readers[0]
    index = 1 if add.inputs[0] == name else 0
    stored = constant_of(graph.onnx, add.inputs[index])
    if stored is None or add.inputs[0] == add.inputs[1] or stored.ndim > len(shape):
        return None
    wanted = [size if axis == channel_axis else 1 for axis, size in enumerate(shape)]
    if [1] * (len(shape) - stored.ndim) + list(stored.shape) != wanted:
        return None
    return add, index


def is_non_negative(graph: Graph, name: str) -> bool:
    """Tell whether a value is known to hold nothing below zero."""
    node = graph.producers.get(name)
    if node is None or node.domain:
        return False
    if node.op in _NON_NEGATIVE:
        return True
    if node.op == "Clip":
        low = node.get("min", constant_of(graph.onnx, node.inputs[1]) if node.has(1) else None)
        return low is not None and float(np.min(low)) >= 0
    if node.op in _KEEPS_SIGN:
        return is_non_negative(graph, node.inputs[0])
    return node.op in ("Concat", "Add") and all(is_non_negative(graph, x) for x in node.inputs)


def origin(graph: Graph, node: Node, index: int) -> tuple[Node, int, Arrange | None]:
    """Return the node that reads the stored tensor behind a weight, and what moves it on the way.

    It is the node itself where the weight is stored, or is computed from what is stored.

    Args:
        graph: The graph.
        node: The node that has the weight.
        index: Which of its inputs that is.
    """
    chain: list[Node] = []
    reader, place = node, index
    while reader.inputs[place] not in graph.tensors:
        name = reader.inputs[place]
        producer = graph.producers.get(name)
        alone = sum(x.inputs.count(name) for x in graph.nodes) == 1
        if producer is None or producer.op not in MOVES or producer.domain or not alone:
            return node, index, None
        if any(x and x not in graph.onnx.fixed for x in producer.inputs[1:]):
            return node, index, None
        chain.insert(0, producer)
        reader, place = producer, 0
    if not chain:
        return node, index, None
    others = {name: constant_of(graph.onnx, name) for x in chain for name in x.inputs[1:] if name}
    return reader, place, moved_by([x.proto for x in chain], others, node.opset)
