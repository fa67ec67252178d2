"""What a graph does in training alone: its answers depend on chance, or on the batch's others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dsconvert.base.errors import InputError
from dsconvert.base.units import first_few

from .constants import constant_of
from .graph import OnnxGraph, attributes, is_op, key

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

_SAYS_SO = 14
"""The opset from which on a norm's attribute tells training mode; before, further outputs do."""


def refuse_training(model: ModelProto, folder: Path | None, told: str) -> None:
    """Refuse a graph that was exported in training mode.

    ONNX Runtime itself gives other answers for such a norm at another level of optimisation.

    Args:
        model: The graph.
        folder: Where its external data are.
        told: What messages call it.

    Raises:
        InputError: With the nodes that are.
    """
    graph = OnnxGraph(model, folder)
    found = [graph.names[key(node)] for node in graph.nodes if _trains(graph, node)]
    if found:
        raise InputError(
            f"{told} was exported in training mode: {first_few(found)} would mix the samples of a "
            "batch, or drop values at random.",
            "Export the model for inference: model.eval() before torch.onnx.export.",
            code="training-mode",
        )


def _trains(graph: OnnxGraph, node: NodeProto) -> bool:
    if is_op(node, "BatchNormalization"):
        if graph.opset < _SAYS_SO:
            return len([name for name in node.output if name]) > 1
        return bool(attributes(node).get("training_mode", 0))
    if not is_op(node, "Dropout") or len(node.input) < 3 or not node.input[2]:
        return False
    mode = constant_of(graph, node.input[2])
    rate = constant_of(graph, node.input[1]) if node.input[1] else None
    dropping = rate is None or bool(rate.any())
    return mode is not None and bool(mode.any()) and dropping
