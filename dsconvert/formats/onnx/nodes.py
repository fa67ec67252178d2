"""Walking over nodes, into the graphs that some of them hold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import FunctionProto, GraphProto, NodeProto


def inner_graphs(node: NodeProto) -> Iterator[GraphProto]:
    """Yield the graphs inside a node: branches of an If, the body of a Loop."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def nodes_of(holder: GraphProto | FunctionProto) -> Iterator[NodeProto]:
    """Yield every node of a graph or function, those of inner graphs included."""
    for node in holder.node:
        yield node
        for graph in inner_graphs(node):
            yield from nodes_of(graph)
