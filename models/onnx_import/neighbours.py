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


def gelu_input(graph: Graph, node: Node) -> str | None:
    """Return x where a Mul is the last node of x/2 · (1 + erf(x/√2)), which exporters spell out.

    Args:
        graph: The graph.
        node: The Mul.

    Returns:
        The name of x; None where it is another product.
    """
    for one, other in _either_way(node.inputs):
        if (x := _half_of_gelu(graph, other)) is not None and one == x:
            return x  # x · (½ · (1 + erf))
        inner = graph.producers.get(one)
        if inner is None or inner.op != "Mul":
            continue
        for x, factor in _either_way(inner.inputs):
            if _is_number(graph, other, 0.5) and _argument(graph, factor) == x:
                return x  # (x · (1 + erf)) · ½
            if _is_number(graph, factor, 0.5) and _argument(graph, other) == x:
                return x  # (x · ½) · (1 + erf)
    return None


def _half_of_gelu(graph: Graph, name: str) -> str | None:
    """Return x of ½ · (1 + erf(x/√2))."""
    node = graph.producers.get(name)
    if node is None or node.op != "Mul":
        return None
    found = [
        _argument(graph, one)
        for one, other in _either_way(node.inputs)
        if _is_number(graph, other, 0.5)
    ]
    return found[0] if found else None


def _argument(graph: Graph, name: str) -> str | None:
    """Return x of 1 + erf(x/√2)."""
    add = graph.producers.get(name)
    if add is None or add.op != "Add":
        return None
    for one, other in _either_way(add.inputs):
        erf = graph.producers.get(one)
        if erf is None or erf.op != "Erf" or not _is_number(graph, other, 1.0):
            continue
        scaled = graph.producers.get(erf.inputs[0])
        if scaled is None:
            continue
        if scaled.op == "Div" and _is_number(graph, scaled.inputs[1], np.sqrt(2)):
            return scaled.inputs[0]
        if scaled.op == "Mul":
            for x, factor in _either_way(scaled.inputs):
                if _is_number(graph, factor, np.sqrt(0.5)):
                    return x
    return None


def _either_way(names: Sequence[str]) -> tuple[tuple[str, str], tuple[str, str]]:
    first, second = names
    return (first, second), (second, first)


def _is_number(graph: Graph, name: str, wanted: float) -> bool:
    """Tell whether a value is a stored number, up to half precision's rounding of it."""
    value = constant_of(graph.onnx, name)
    return value is not None and value.size == 1 and abs(float(value.item()) - wanted) < 1e-3


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
