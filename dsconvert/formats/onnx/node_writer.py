"""Nodes that are written in the place of others, with the constants that they read."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from .graph import all_names, attributes, fresh_name
from .messages import assign, copied

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto


class NodeWriter:
    """Writes nodes in place of one, under names that are new in the graph.

    Args:
        node: The one.
        taken: The names in the graph; the new ones are added.

    Attributes:
        node: The one.
        given: Its attributes.
        nodes: What was written.
        weights: The constants that it reads.
    """

    def __init__(self, node: NodeProto, taken: set[str]) -> None:
        self.node, self.given, self.taken = node, attributes(node), taken
        self.prefix = next(filter(None, node.output))
        self.nodes: list[NodeProto] = []
        self.weights: list[TensorProto] = []

    def constant(self, value: Any, dtype: Any = None) -> str:
        """Return the name of a constant; its type is by default that of the value."""
        from onnx import numpy_helper

        name = fresh_name(f"{self.prefix}_constant", self.taken)
        self.weights.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def make(self, kind: str, *inputs: str, **given: Any) -> str:
        """Add a node, and return the name of what it makes."""
        from onnx import helper

        name = fresh_name(f"{self.prefix}_{kind}", self.taken)
        self.nodes.append(helper.make_node(kind, inputs, [name], name, **given))
        return name


W = TypeVar("W", bound=NodeWriter)


def rewritten(
    model: ModelProto,
    spelling: Callable[[NodeProto], Callable[[W], str | None] | None],
    writer: Callable[[NodeProto, set[str]], W],
) -> ModelProto:
    """Write other nodes in the place of some of the main graph.

    Args:
        model: The model; it is not changed.
        spelling: Returns what writes for a node, and gives its first result as the last thing that
            it makes, or None where it cannot; None for nodes that stay.
        writer: Returns what it writes with.

    Returns:
        A new model; the given one where no node is to be replaced.
    """
    if not any(map(spelling, model.graph.node)):
        return model
    model = copied(model)
    taken = set(all_names(model.graph))
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        spell = spelling(node)
        to = writer(node, taken)
        made = None if spell is None else spell(to)
        if made is None:
            nodes.append(node)
            continue
        assert made == to.nodes[-1].output[0], f"{node.op_type}: its result was not made last"
        to.nodes[-1].output[0] = node.output[0]
        nodes += to.nodes
        model.graph.initializer.extend(to.weights)
    assign(model.graph.node, nodes)
    return model
