"""Last dense layers: a Gemm, or a MatMul and an Add, whose result is an output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dsconvert.base.predictor import Array
from dsconvert.formats.onnx.constants import constant_of
from dsconvert.formats.onnx.graph import OnnxGraph, attributes, is_op, key

if TYPE_CHECKING:
    from onnx import NodeProto

HEAD_FEATURES = 4096
"""Above this many features a dense layer is not refitted: the normal equations grow too large."""

_ACTIVATIONS = ("Softmax", "LogSoftmax", "Relu", "Sigmoid", "Tanh", "Identity")


@dataclass(frozen=True)
class Head:
    """A dense layer on vectors.

    Attributes:
        node: The Gemm or MatMul.
        adder: The Add of a MatMul's bias; None for a Gemm.
        transposed: Whether the weights are stored as (U, F).
        kernel: (F, U).
        bias: (U,).
        weights: Name of the constant that holds the kernel.
        offset: Name of the constant that holds the bias.
    """

    node: NodeProto
    adder: NodeProto | None
    transposed: bool
    kernel: Array
    bias: Array
    weights: str
    offset: str


def head_at(graph: OnnxGraph, node: NodeProto) -> Head | None:
    """Return the head that begins at a node, through activations at most before an output."""
    given = attributes(node)
    if is_op(node, "Gemm") and len(node.input) == 3:
        plain = given.get("alpha", 1.0) == 1 == given.get("beta", 1.0)
        if not plain or given.get("transA", 0):
            return None
        head = _head(graph, node, None, bool(given.get("transB", 0)), node.input[2])
    elif is_op(node, "MatMul"):
        adder = graph.only_reader(key(node))
        if adder is None or not is_op(adder, "Add"):
            return None
        offset = next((name for name in adder.input if name != key(node)), "")
        head = _head(graph, node, adder, False, offset)
    else:
        return None
    return head if head is not None and _ends(graph, key(head.adder or node)) else None


def _head(
    graph: OnnxGraph, node: NodeProto, adder: NodeProto | None, transposed: bool, offset: str
) -> Head | None:
    kernel, bias = constant_of(graph, node.input[1]), constant_of(graph, offset)
    if kernel is None or bias is None or kernel.ndim != 2 or bias.ndim > 2:
        return None
    kernel = kernel.T if transposed else kernel
    if kernel.shape[0] > HEAD_FEATURES or bias.shape not in (
        (kernel.shape[1],),
        (1, kernel.shape[1]),
    ):
        return None
    if len(graph.shapes.get(node.input[0], ())) != 2:
        return None
    wide = np.promote_types(kernel.dtype, np.float32)
    return Head(
        node,
        adder,
        transposed,
        np.asarray(kernel, wide),
        np.asarray(bias.reshape(-1), wide),
        node.input[1],
        offset,
    )


def _ends(graph: OnnxGraph, value: str) -> bool:
    while value not in graph.outputs:
        after = graph.only_reader(value)
        if after is None or not is_op(after, *_ACTIVATIONS):
            return False
        value = key(after)
    return True
