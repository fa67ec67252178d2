"""Half-precision ONNX graphs in float32: every value of 16 bits becomes one of 32."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .messages import copied
from .nodes import inner_graphs, nodes_of
from .tensors import all_tensors

if TYPE_CHECKING:
    from onnx import ModelProto

_FLOAT = 1
HALF = (10, 16)
"""FLOAT16 and BFLOAT16."""
_KIND = ("to", "dtype", "output_dtype", "stash_type")
"""Attributes that hold an element type."""


def is_half(model: ModelProto) -> bool:
    """Tell whether a graph stores numbers of 16 bits."""
    return any(tensor.data_type in HALF for tensor in all_tensors(model.graph))


def in_float32(model: ModelProto) -> ModelProto:
    """Return a model that computes in float32 what it computed in half precision.

    Args:
        model: The model, with its weights in itself; it is not changed.

    Example:
        >>> import onnx
        >>> one = onnx.numpy_helper.from_array(np.ones(2, np.float16), "one")
        >>> graph = onnx.helper.make_graph([], "g", [], [], [one])
        >>> in_float32(onnx.helper.make_model(graph)).graph.initializer[0].data_type
        1
    """
    from onnx import numpy_helper

    model = copied(model)
    for tensor in all_tensors(model.graph):
        if tensor.data_type in HALF:
            values = np.asarray(numpy_helper.to_array(tensor), np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    nodes = list(nodes_of(model.graph))
    for graph in (model.graph, *(inner for node in nodes for inner in inner_graphs(node))):
        del graph.value_info[:]
        for value in (*graph.input, *graph.output):
            kind = value.type.tensor_type
            if kind.elem_type in HALF:
                kind.elem_type = _FLOAT
    for node in nodes:
        for attribute in node.attribute:
            if attribute.name in _KIND and attribute.i in HALF:
                attribute.i = _FLOAT
    return model
