"""Operators that compute each element from those at the same place."""

from __future__ import annotations

from ..builder import Builder
from ..graph import Node
from ..registry import op
from ..values import Tensor

_LAYERS = {"Add": "Add", "Sub": "Subtract", "Mul": "Multiply", "Max": "Maximum", "Min": "Minimum"}
"""The Keras layers for two or more tensors that have the same shape."""
_BINARY = {"Add": "add", "Sub": "subtract", "Mul": "multiply", "Div": "divide"}
_UNARY = {"Abs": "absolute", "Neg": "negative", "Exp": "exp", "Sqrt": "sqrt"}


@op(*_BINARY)
def binary(node: Node, build: Builder) -> Tensor:
    """Two operands, broadcast."""
    operands, order = build.align(node)
    same = all(hasattr(x, "shape") and x.shape == operands[0].shape for x in operands)
    tensors = all(hasattr(x, "_keras_history") for x in operands)
    if node.op in _LAYERS and tensors and same:
        return build.result(node, build.layer(node, _LAYERS[node.op])(operands), order)
    return build.result(node, build.apply(node, _BINARY[node.op], *operands), order)


@op(*_UNARY)
def unary(node: Node, build: Builder) -> Tensor:
    """One operand."""
    x = build.tensor(node)
    return build.result(node, build.apply(node, _UNARY[node.op], x.keras), x.order)
