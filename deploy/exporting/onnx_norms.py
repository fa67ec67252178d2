"""Norms that exporters spell out in an .onnx file, x / √(mean of x² + ε), which stay in float.

A variance runs over several powers of ten: with one scale for all of it small ones are 0, and what
is divided by their root is lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dsconvert.formats.onnx.constants import constant_of
from dsconvert.formats.onnx.graph import OnnxGraph, is_op, key

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

_SQUARES = ("Pow", "Mul", "ReduceMean", "ReduceSum", "ReduceSumSquare")
_BETWEEN = ("Add", "Clip", "Max", "Expand", "Unsqueeze", *_SQUARES)
"""Operators between the squares and their root, or the division by it."""
_SUMS = ("ReduceMean", "ReduceSum", "ReduceSumSquare")


def dividing(model: ModelProto) -> list[str]:
    """Return the names of the nodes that compute a norm and divide by it.

    Args:
        model: The float32 model; its nodes have names.
    """
    graph = OnnxGraph(model)
    found: dict[str, NodeProto] = {}
    for node in graph.nodes:
        if _is_root(graph, node):
            above = _above(graph, node)
            if any(is_op(one, *_SUMS) for one in above.values()):
                found |= above
                found |= _below(graph, node)
    return [node.name for node in found.values() if node.name]


def _is_root(graph: OnnxGraph, node: NodeProto) -> bool:
    """Tell whether a node takes a root, or divides by one."""
    if not is_op(node, "Pow"):
        return is_op(node, "Sqrt")
    power = constant_of(graph, node.input[1])
    return power is not None and power.size == 1 and abs(float(power.reshape(-1)[0])) == 0.5


def _above(graph: OnnxGraph, root: NodeProto) -> dict[str, NodeProto]:
    """Return a root with the nodes that it is the root of, up to the squares."""
    found = {key(root): root}
    queue = [root]
    while queue:
        node = queue.pop()
        for name in dict.fromkeys(node.input):
            maker = graph.makers.get(name)
            if maker is None or not is_op(maker, *_BETWEEN) or key(maker) in found:
                continue
            found[key(maker)] = maker
            if not is_op(maker, "Mul", "Pow", "ReduceSumSquare"):
                queue.append(maker)
    return found


def _below(graph: OnnxGraph, root: NodeProto) -> dict[str, NodeProto]:
    """Return what divides by a root, or multiplies by its reciprocal."""
    found: dict[str, NodeProto] = {}
    queue = [root]
    while queue:
        for name in queue.pop().output:
            for node in graph.readers.get(name, ()):
                if is_op(node, "Div", "Mul", "Reciprocal", "Add", "Clip", "Max", "Expand"):
                    found[key(node)] = node
                    if not is_op(node, "Div", "Mul"):
                        queue.append(node)
    return found
