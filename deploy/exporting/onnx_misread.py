"""Operators that ONNX Runtime's quantizer takes for others, and how to keep it from that.

It knows an operator by its name alone, without the domain and the attributes, and weights per
channel by one axis.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dsconvert.base.errors import require
from dsconvert.formats.onnx.graph import attributes, is_op
from dsconvert.formats.onnx.nodes import nodes_of

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

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


def left_in_float(model: ModelProto) -> list[str]:
    """Return the names of nodes that cannot be quantized in the form that they have.

    Args:
        model: The float32 model; its nodes have names.
    """
    ranks = {tensor.name: len(tensor.dims) for tensor in model.graph.initializer}
    return [node.name for node in model.graph.node if node.name and _misread(node, ranks)]


def _misread(node: NodeProto, ranks: Mapping[str, int]) -> bool:
    """Tell whether the quantizer, or ONNX Runtime behind it, takes a node for a simpler one.

    A scale of several axes is more than one for each channel. QLinearAveragePool knows no
    dilations. What a crop finds outside the image may lie outside the range of the image, too, and
    so may what a cubic filter makes of it; with quantized neighbours ONNX Runtime takes that one to
    (N, H, W, C), for which it has no kernel.
    """
    if is_op(node, "LayerNormalization"):
        return ranks.get(node.input[1], 1) > 1
    given = attributes(node)
    if is_op(node, "AveragePool"):
        return any(dilation > 1 for dilation in given.get("dilations", ()))
    ways = {given.get("coordinate_transformation_mode"), given.get("mode")}
    return is_op(node, "Resize") and not ways.isdisjoint(("tf_crop_and_resize", "cubic"))
