"""If nodes whose condition is a constant: the branch that is taken stands in their place.

A condition on the shape of a value is one where that shape is fixed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from .checking import light_copy
from .constants import constant_of
from .graph import OnnxGraph, all_names, attributes, fresh_name, is_op
from .inlining import inlined_graph, read_as
from .known_sizes import known_sizes
from .messages import assign, copied
from .nodes import inner_graphs

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto


def without_constant_branches(
    model: ModelProto,
    folder: Path | None = None,
    wanted: Callable[[NodeProto], bool] = lambda node: True,
) -> ModelProto:
    """Put the branches of constant conditions into the main graph.

    Args:
        model: The model; it is not changed.
        folder: Where its external data are.
        wanted: Branches that hold such a node, however deep, are put there.

    Returns:
        A new model; the given one where no condition is constant.
    """
    while found := [
        index
        for index, node in enumerate(model.graph.node)
        if is_op(node, "If") and any(_holds(inner, wanted) for inner in inner_graphs(node))
    ]:
        graph = OnnxGraph(model, folder)
        conditions = {i: constant_of(graph, model.graph.node[i].input[0]) for i in found}
        if None in conditions.values():
            sized = OnnxGraph(with_known_shapes(graph))
            conditions = {i: constant_of(sized, model.graph.node[i].input[0]) for i in found}
        chosen = {
            index: _branch(model.graph.node[index], bool(value))
            for index, value in conditions.items()
            if value is not None
        }
        if not chosen:
            break
        model = copied(model)
        taken = set(all_names(model.graph))
        nodes: list[NodeProto] = []
        for index, node in enumerate(model.graph.node):
            nodes += _taken(model, node, chosen[index], taken) if index in chosen else [node]
        assign(model.graph.node, nodes)
    return model


def name_apart(model: ModelProto) -> None:
    """Give the weights of inner graphs names of their own; two branches may share them.

    ONNX Runtime's converter to float16 takes no name twice.

    Args:
        model: The model, which is changed.
    """
    taken = set(all_names(model.graph))
    _name_apart(model.graph, {one.name for one in model.graph.initializer}, taken)


def _name_apart(graph: GraphProto, seen: set[str], taken: set[str]) -> None:
    for node in graph.node:
        for inner in inner_graphs(node):
            names = {
                one.name: fresh_name(one.name, taken)
                for one in inner.initializer
                if one.name in seen
            }
            seen.update(one.name for one in inner.initializer)
            for one in inner.initializer:
                one.name = names.get(one.name, one.name)
            for one in inner.node:
                read_as(one, names)
            for output in inner.output:
                output.name = names.get(output.name, output.name)
            _name_apart(inner, seen, taken)


def with_known_shapes(graph: OnnxGraph) -> ModelProto:
    """Return a light copy in which shapes, and single sizes, that are fixed are constants."""
    from onnx import helper, numpy_helper

    model, known = light_copy(graph.model, graph.folder), known_sizes(graph)
    nodes = []
    for node in model.graph.node:
        name = node.output[0] if node.output else ""
        if name in known:
            value = numpy_helper.from_array(known[name], name)
            node = helper.make_node("Constant", [], [name], node.name, value=value)
        nodes.append(node)
    assign(model.graph.node, nodes)
    return model


def _holds(graph: GraphProto, wanted: Callable[[NodeProto], bool]) -> bool:
    return any(
        wanted(node) or any(_holds(inner, wanted) for inner in inner_graphs(node))
        for node in graph.node
    )


def _branch(node: NodeProto, condition: bool) -> GraphProto:
    branch: GraphProto = attributes(node)["then_branch" if condition else "else_branch"]
    return branch


def _taken(
    model: ModelProto, node: NodeProto, branch: GraphProto, taken: set[str]
) -> list[NodeProto]:
    """Return the nodes of a branch, and its results under the names of the If's."""
    from onnx import helper

    nodes, made = inlined_graph(model, branch, node.name or node.output[0], taken)
    for outer, inner in zip(node.output, made, strict=True):
        nodes.append(helper.make_node("Identity", [inner], [outer], f"{outer}_taken"))
    return nodes
