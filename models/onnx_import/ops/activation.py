"""Activations."""

from __future__ import annotations

from ..builder import Builder
from ..graph import Node
from ..registry import op
from ..values import Tensor


@op("Relu")
def relu(node: Node, build: Builder) -> Tensor:
    """max(x, 0)."""
    x = build.tensor(node, rows=True)
    return build.result(node, build.layer(node, "ReLU")(x.keras), x.order, rows=x.rows)
