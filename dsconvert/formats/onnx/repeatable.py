"""One form of a graph that says the same: whoever wrote it may order and name by chance.

tf2onnx goes through sets of names, whose order is another one in each process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .graph import all_names, fresh_name, reads_of
from .messages import assign

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

_ROLES = {
    **dict.fromkeys(("Conv", "ConvTranspose", "Gemm"), ("weight", "bias")),
    "MatMul": ("weight",),
}
"""What the inputs after the first are, by the kind of node."""


def make_repeatable(model: ModelProto) -> None:
    """Order nodes and constants by what the outputs read, and name constants by their readers.

    Args:
        model: The model, whose main graph is changed; its constants are initialisers. Names of
            nodes, of kernels that are called by their layers, and those that inner graphs read,
            stay.
    """
    graph = model.graph
    nodes = _ordered(graph)
    stored = {tensor.name: tensor for tensor in graph.initializer}
    inner = {name for node in nodes for name in reads_of(node) if name not in node.input}
    ends = {value.name for value in (*graph.input, *graph.output)}
    taken = set(all_names(graph))
    names: dict[str, str] = {}
    for node in nodes:
        for place, name in enumerate(node.input):
            if name in stored and name not in names:
                fixed = name in inner or name in ends or _tells(node, place, name)
                names[name] = name if fixed else fresh_name(_called(node, place), taken)
            node.input[place] = names.get(name, name)
    unread = [name for name in stored if name not in names]
    for name, called in names.items():
        stored[name].name = called
    assign(graph.initializer, [stored[name] for name in (*names, *sorted(unread))])
    assign(graph.value_info, sorted(graph.value_info, key=lambda value: str(value.name)))
    assign(graph.node, nodes)


def _ordered(graph: GraphProto) -> list[NodeProto]:
    """Return the nodes, each behind those that it reads, in the order in which outputs do."""
    nodes = list(graph.node)
    maker = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    needs = [[maker[name] for name in reads_of(node) if name in maker] for node in nodes]
    order: dict[int, None] = {}
    ends = [maker[value.name] for value in graph.output if value.name in maker]
    for first in (*ends, *range(len(nodes))):
        path = [first]
        while path:
            missing = next((index for index in needs[path[-1]] if index not in order), None)
            if missing is None:
                order.setdefault(path.pop())
            else:
                path.append(missing)
    return [nodes[index] for index in order]


def _tells(node: NodeProto, place: int, name: str) -> bool:
    """Tell whether a kernel's name is of its layer, which the node's may not be after a fusion."""
    return place == 1 and node.op_type in _ROLES and "/" in name


def _called(node: NodeProto, place: int) -> str:
    roles = _ROLES.get(node.op_type, ())
    role = roles[place - 1] if 0 < place <= len(roles) else str(place)
    return f"{node.name or node.output[0]}/{role}"
