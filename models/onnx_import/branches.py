"""If nodes whose condition is a constant: the branch that is taken stands in their place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dsconvert.formats.onnx.constants import constant_of
from dsconvert.formats.onnx.graph import OnnxGraph, all_names, attributes, fresh_name, is_op
from dsconvert.formats.onnx.messages import assign, copied

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto


def without_constant_branches(model: ModelProto) -> ModelProto:
    """Return the model with the branches of constant conditions in the main graph.

    Args:
        model: The model with its weights in it; it is not changed.
    """
    while True:
        graph = OnnxGraph(model)
        chosen = {
            index: bool(value)
            for index, node in enumerate(graph.nodes)
            if is_op(node, "If") and (value := constant_of(graph, node.input[0])) is not None
        }
        if not chosen:
            return model
        model = copied(model)
        taken = set(all_names(model.graph))
        nodes: list[NodeProto] = []
        for index, node in enumerate(model.graph.node):
            if index in chosen:
                nodes += _inlined(model, node, chosen[index], taken)
            else:
                nodes.append(node)
        assign(model.graph.node, nodes)


def _inlined(
    model: ModelProto, node: NodeProto, condition: bool, taken: set[str]
) -> list[NodeProto]:
    """Return the nodes of a branch under names of their own; its constants go to the graph."""
    from onnx import helper

    branch = attributes(node)["then_branch" if condition else "else_branch"]
    own = [tensor.name for tensor in branch.initializer]
    own += [name for one in branch.node for name in one.output if name]
    names = {name: fresh_name(f"{node.name or node.output[0]}/{name}", taken) for name in own}
    for tensor in branch.initializer:
        moved = copied(tensor)
        moved.name = names[tensor.name]
        model.graph.initializer.append(moved)
    nodes = []
    for one in branch.node:
        moved = copied(one)
        moved.input[:] = [names.get(name, name) for name in one.input]
        moved.output[:] = [names.get(name, name) for name in one.output]
        nodes.append(moved)
    for outer, inner in zip(node.output, branch.output, strict=True):
        made = names.get(inner.name, inner.name)
        nodes.append(helper.make_node("Identity", [made], [outer], f"{outer}_taken"))
    return nodes
