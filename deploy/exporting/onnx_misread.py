"""Operators that ONNX Runtime's quantizer takes for others, and how to keep it from that.

It knows an operator by its name alone, without the domain, and weights per channel by one axis.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dsconvert.base.errors import require
from dsconvert.formats.onnx.graph import attributes, is_op
from dsconvert.formats.onnx.nodes import nodes_of

if TYPE_CHECKING:
    from onnx import ModelProto

_OF_MICROSOFT = ("Attention",)
"""What it quantizes is com.microsoft's; since opset 23 ONNX has one of other inputs."""


def operators_to_quantize(model: ModelProto) -> list[str] | None:
    """Return the operators whose weights a dynamic quantization may change.

    Args:
        model: The float32 model.

    Returns:
        Their names, without those that ONNX Runtime would misread; None where it may take all
        that it knows.
    """
    misread = {node.op_type for node in nodes_of(model.graph) if is_op(node, *_OF_MICROSOFT)}
    if not misread:
        return None
    registry = require("onnxruntime.quantization.registry", "onnx", "to quantize .onnx files")
    return [name for name in registry.IntegerOpsRegistry if name not in misread]


def one_scale(model: ModelProto) -> dict[str, list[dict[str, Any]]]:
    """Return settings by which some weights get one scale instead of one for each channel.

    The second axis of a ConvTranspose's kernel counts the channels of one group: with several
    groups there are fewer scales than biases, and the quantizer fails.

    Args:
        model: The float32 model.

    Returns:
        By the weight's name, as the quantizer's ``TensorQuantOverrides`` takes them.
    """
    quantization = require("onnxruntime.quantization", "onnx", "to quantize .onnx files")
    stored = {tensor.name for tensor in model.graph.initializer}
    return {
        node.input[1]: [{"quant_type": quantization.QuantType.QInt8, "symmetric": True}]
        for node in model.graph.node
        if is_op(node, "ConvTranspose")
        and node.input[1] in stored
        and attributes(node).get("group", 1) > 1
    }
