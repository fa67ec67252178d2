"""Masks of a softmax in an .onnx file, which stay in float.

What is masked lies far below the rest, at -100 … -∞: a scale for both leaves nothing of the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dsconvert.formats.onnx.constants import constant_of
from dsconvert.formats.onnx.graph import OnnxGraph, is_op, key

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

_MASKED = -30.0
"""What lies so far below the largest score gets nothing of a softmax."""
_BETWEEN = (
    "Add", "Sub", "Mul", "Where", "Max", "Min", "Reshape", "Transpose", "Squeeze", "Unsqueeze",
    "Expand", "Cast", "Identity", "Slice",
)  # fmt: skip
"""Operators between a mask and the softmax that it is for."""


def masking(model: ModelProto) -> list[str]:
    """Return the names of the nodes that mask scores and take their softmax.

    Args:
        model: The float32 model; its nodes have names.
    """
    graph = OnnxGraph(model)
    found: dict[str, NodeProto] = {}
    for node in graph.nodes:
        if is_op(node, "Softmax", "LogSoftmax"):
            found |= _masked(graph, node)
    return [node.name for node in found.values() if node.name]


def _masked(graph: OnnxGraph, softmax: NodeProto) -> dict[str, NodeProto]:
    """Return the nodes from a mask down to a softmax; none where it has no mask."""
    above = {key(softmax): softmax}
    queue = [softmax]
    while queue:
        for name in queue.pop().input:
            maker = graph.makers.get(name)
            if maker is not None and is_op(maker, *_BETWEEN) and key(maker) not in above:
                above[key(maker)] = maker
                queue.append(maker)
    kept: dict[str, NodeProto] = {}
    for node in graph.nodes:  # in their order: what is masked goes down to the softmax
        if key(node) not in above:
            continue
        masks = any(_is_mask(graph, name) for name in node.input)
        if masks or not kept.keys().isdisjoint(node.input):
            kept[key(node)] = node
    return kept if key(softmax) in kept else {}


def _is_mask(graph: OnnxGraph, name: str) -> bool:
    value = constant_of(graph, name) if name in graph.stored or name in graph.fixed else None
    return value is not None and value.dtype.kind == "f" and bool((value <= _MASKED).any())
