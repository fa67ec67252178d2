"""Constants of an ONNX graph: what is stored, and what is computed from that alone.

Exporters without constant folding, weight normalisation, tied weights and files that are stored in
float16 leave nodes between a weight and the layer that reads it. They are one constant all the
same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dsconvert.base.predictor import Array

from .graph import OnnxGraph, reads_of
from .subgraph import Part, Unable
from .tensors import array_of, constant_value

if TYPE_CHECKING:
    from onnx import NodeProto


def constant_of(graph: OnnxGraph, name: str) -> Array | None:
    """Return the value of what depends on nothing but what the model holds.

    That is an initialiser, a Constant node, and whatever the graph computes from those alone; ONNX
    Runtime computes it here, once. An initialiser that the graph lists among its inputs counts:
    callers may override it only in theory.

    Args:
        graph: The graph.
        name: The value's name.

    Returns:
        The value; None for what depends on the model's inputs, for text, lists and sparse tensors,
        and for what ONNX Runtime cannot compute.
    """
    if name in graph.initializers:
        return array_of(graph.initializers[name], graph.folder)
    if name in graph.constants:
        return constant_value(graph.constants[name], graph.folder)
    if name in graph.sparse or name not in graph.fixed:
        return None
    if name not in graph.folded:
        graph.folded[name] = _computed(graph, name)
    return graph.folded[name]


def constant_shape(graph: OnnxGraph, name: str) -> tuple[int, ...] | None:
    """Return the shape of a constant, without its value where that will do; None for all else."""
    if name in graph.initializers:
        return tuple(graph.initializers[name].dims)
    if name not in graph.fixed:
        return None
    shape = graph.shapes.get(name)
    if shape is not None and None not in shape:
        return tuple(size or 0 for size in shape)
    value = constant_of(graph, name)
    return None if value is None else value.shape


def is_finite(graph: OnnxGraph, name: str) -> bool:
    """Tell whether a constant holds neither NaN nor infinity; looked at once."""
    if name not in graph.finite:
        value = constant_of(graph, name)
        graph.finite[name] = value is None or bool(np.isfinite(value).all())
    return graph.finite[name]


def computed_by(graph: OnnxGraph, name: str) -> list[NodeProto]:
    """Return the nodes that compute a constant, in order, Constant nodes left out."""
    wanted, nodes = {name}, []
    for node in reversed(graph.nodes_without_constants):
        if not wanted.isdisjoint(node.output):
            wanted.update(reads_of(node))
            nodes.append(node)
    return nodes[::-1]


def _computed(graph: OnnxGraph, name: str) -> Array | None:
    try:
        value = Part(graph, computed_by(graph, name), {}, [name], {}).run({})[name]
    except Unable:
        return None
    return value if isinstance(value, np.ndarray) else None
