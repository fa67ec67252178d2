"""A graph inside a node put into the main graph, under names of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from .graph import fresh_name
from .messages import copied
from .nodes import inner_graphs

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto


def inlined_graph(
    model: ModelProto,
    graph: GraphProto,
    prefix: str,
    taken: set[str],
    given: Sequence[str] = (),
    stored: dict[str, str] | None = None,
) -> tuple[list[NodeProto], list[str]]:
    """Return the nodes of an inner graph under names of their own, and what its results are called.

    Its constants go to the main graph.

    Args:
        model: The model that takes the constants.
        graph: The inner graph.
        prefix: Of the new names.
        taken: The names that there are; the new ones are added.
        given: The values that stand for the graph's inputs.
        stored: The new names of its constants, where it was put there before.
    """
    tensors = [*graph.initializer, *graph.sparse_initializer]
    held = [(one.values if hasattr(one, "values") else one).name for one in tensors]
    again = stored if stored is not None else {}
    new = [place for place, name in enumerate(held) if name not in again]
    again |= {held[place]: fresh_name(f"{prefix}/{held[place]}", taken) for place in new}
    own = [name for one in graph.node for name in one.output if name]
    names = again | {name: fresh_name(f"{prefix}/{name}", taken) for name in own}
    names |= dict(zip((one.name for one in graph.input), given, strict=True))
    for place in new:
        tensor = copied(tensors[place])
        sparse = hasattr(tensor, "values")
        (tensor.values if sparse else tensor).name = names[held[place]]
        (model.graph.sparse_initializer if sparse else model.graph.initializer).append(tensor)
    nodes = [copied(one) for one in graph.node]
    for one in nodes:
        one.name = f"{prefix}/{one.name}" if one.name else ""
        one.output[:] = [names.get(name, name) for name in one.output]
        read_as(one, names)
    return nodes, [names.get(one.name, one.name) for one in graph.output]


def read_as(node: NodeProto, names: Mapping[str, str]) -> None:
    """Let a node, and the graphs inside, read values under their new names."""
    node.input[:] = [names.get(name, name) for name in node.input]
    for graph in inner_graphs(node):
        own = {x.name for x in (*graph.input, *graph.initializer)}
        own |= {name for one in graph.node for name in one.output}
        outside = {old: new for old, new in names.items() if old not in own}
        for one in graph.node:
            read_as(one, outside)
        for output in graph.output:
            output.name = outside.get(output.name, output.name)
