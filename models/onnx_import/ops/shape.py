"""Operators that move elements without changing them: most of them only relabel axes."""

from __future__ import annotations

from ..builder import Builder
from ..graph import Node
from ..layout import after_transpose
from ..registry import op
from ..values import Tensor


@op("Identity")
def identity(node: Node, build: Builder) -> Tensor:
    """Nothing."""
    x = build.tensor(node, rows=True)
    return build.result(node, x.keras, x.order, rows=x.rows)


@op("Transpose")
def transpose(node: Node, build: Builder) -> Tensor:
    """Relabels the axes; whoever needs them in another order moves them."""
    x = build.tensor(node)
    perm = node.get("perm", tuple(reversed(range(x.rank))))
    return build.result(node, x.keras, after_transpose(x.order, perm))
