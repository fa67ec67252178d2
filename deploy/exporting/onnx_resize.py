"""Resize nodes in the forms that ONNX Runtime's tools take.

ONNX Runtime 1.32 moves Q/DQ pairs across a Resize without regard to its attribute ``axes``, and
then refuses the graph that it has made. Its conversion to float16 casts constants that a Resize
shares: what is empty, and so not given, is computed then.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dsconvert.formats.onnx.constants import constant_of
from dsconvert.formats.onnx.graph import OnnxGraph, all_names, attributes, fresh_name, is_op
from dsconvert.formats.onnx.messages import assign

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

_SCALES, _SIZES = 2, 3
"""Which input of a Resize holds them."""


def widen_resizes(model: ModelProto, folder: Path | None) -> bool:
    """Give each Resize a size or a scale for all axes; others keep theirs.

    Args:
        model: The model, which is changed.
        folder: Where its external data are.

    Returns:
        Whether anything changed. A node that crops, or keeps an aspect ratio, stays.
    """
    graph = OnnxGraph(model, folder)
    nodes: list[NodeProto] = []
    taken = set(all_names(model.graph))
    for node in model.graph.node:
        shape = graph.shapes.get(node.input[0]) if is_op(node, "Resize") else None
        if shape is not None and _is_partial(node):
            nodes += _widened(node, len(shape), taken)
        nodes.append(node)
    changed = len(nodes) > len(model.graph.node)
    if changed:
        assign(model.graph.node, nodes)
    return changed


def _is_partial(node: NodeProto) -> bool:
    given = attributes(node)
    stretches = given.get("keep_aspect_ratio_policy", "stretch") == "stretch"
    return "axes" in given and stretches and not (len(node.input) > 1 and node.input[1])


def _widened(node: NodeProto, rank: int, taken: set[str]) -> list[NodeProto]:
    """Change a node to read sizes or scales of all axes, and make the nodes that gather them."""
    from onnx import helper, numpy_helper

    axes = [axis % rank for axis in attributes(node)["axes"]]
    by_size = len(node.input) > _SIZES and bool(node.input[_SIZES])
    place = _SIZES if by_size else _SCALES
    order = np.arange(rank)
    order[axes] = rank + np.arange(len(axes))

    def named(what: str) -> str:
        return fresh_name(f"{node.output[0]}_{what}", taken)

    def constant(what: str, values: object) -> NodeProto:
        return helper.make_node(
            "Constant", [], [named(what)], value=numpy_helper.from_array(np.asarray(values))
        )

    usual = (
        helper.make_node("Shape", [node.input[0]], [named("shape")])
        if by_size
        else constant("ones", np.ones(rank, np.float32))
    )
    picked = constant("order", order.astype(np.int64))
    both = helper.make_node(
        "Concat", [usual.output[0], node.input[place]], [named("known")], axis=0
    )
    whole = helper.make_node("Gather", [both.output[0], picked.output[0]], [named("whole")], axis=0)
    node.input[place] = whole.output[0]
    assign(node.attribute, [item for item in node.attribute if item.name != "axes"])
    return [usual, picked, both, whole]


def hold_scales(model: ModelProto) -> None:
    """Give each Resize constants of its own in place of those that it reads as scales.

    Args:
        model: The model with its weights in it, which is changed.
    """
    from onnx import numpy_helper

    graph = OnnxGraph(model)
    taken = set(all_names(model.graph))
    for node in graph.nodes:
        scales = node.input[_SCALES] if is_op(node, "Resize") and len(node.input) > _SCALES else ""
        value = constant_of(graph, scales) if scales else None
        if value is not None:
            node.input[_SCALES] = fresh_name(f"{node.output[0]}_scales", taken)
            held = numpy_helper.from_array(np.asarray(value, np.float32), node.input[_SCALES])
            model.graph.initializer.append(held)
