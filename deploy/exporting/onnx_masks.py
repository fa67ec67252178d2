"""Masks of a softmax in an .onnx file, which stay in float.

What is masked lies far below the rest, at -100 … -∞: a scale for both leaves nothing of the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dsconvert.formats.onnx.graph import OnnxGraph, is_op, key
from dsconvert.formats.onnx.masks import from_masks

if TYPE_CHECKING:
    from onnx import ModelProto


def masking(model: ModelProto) -> list[str]:
    """Return the names of the nodes that mask scores and take their softmax.

    Args:
        model: The float32 model; its nodes have names.
    """
    graph = OnnxGraph(model)
    found: set[str] = set()
    for node in graph.nodes:
        if is_op(node, "Softmax", "LogSoftmax"):
            above = from_masks(graph, node.input[0])
            if node.input[0] in above:
                found |= {key(node), *above}
    return [node.name for node in graph.nodes if node.name and key(node) in found]
