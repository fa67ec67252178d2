"""The order of a graph's nodes: ONNX wants each behind what it reads, ONNX Runtime does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .graph import reads_of
from .messages import assign

if TYPE_CHECKING:
    from onnx import ModelProto


def sort_nodes(model: ModelProto) -> bool:
    """Put each node of the main graph behind those that make what it reads.

    Args:
        model: The model, which is changed.

    Returns:
        Whether anything moved. A graph with a cycle stays as it is.
    """
    nodes = list(model.graph.node)
    maker = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    needs = [sorted({maker[name] for name in reads_of(node) if name in maker}) for node in nodes]
    order: list[int] = []
    placed: set[int] = set()
    for first in range(len(nodes)):
        path = [first]
        while path:
            missing = [index for index in needs[path[-1]] if index not in placed]
            if not missing:
                index = path.pop()
                if index not in placed:
                    placed.add(index)
                    order.append(index)
            elif missing[0] in path:
                return False
            else:
                path.append(missing[0])
    if order == sorted(order):
        return False
    assign(model.graph.node, [nodes[index] for index in order])
    return True
