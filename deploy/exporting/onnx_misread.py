"""Operators that ONNX Runtime's quantizer takes for others, and how to keep it from that.

It knows an operator by its name alone, without the domain and the attributes, and weights per
channel by one axis.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from dsconvert.base.errors import require
from dsconvert.formats.onnx.graph import OnnxGraph, all_names, attributes, fresh_name, is_op
from dsconvert.formats.onnx.messages import assign
from dsconvert.formats.onnx.nodes import nodes_of

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

_OF_MICROSOFT = ("Attention",)
"""What it quantizes is com.microsoft's; since opset 23 ONNX has one of other inputs."""
_PAD_AXES = 3
"""Which input of a Pad names its axes."""


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
    (N, H, W, C), for which it has no kernel. Nor does it take the axes that a Resize or Pad names
    along to there.
    """
    if is_op(node, "LayerNormalization"):
        return ranks.get(node.input[1], 1) > 1
    given = attributes(node)
    if is_op(node, "AveragePool"):
        return any(dilation > 1 for dilation in given.get("dilations", ()))
    if is_op(node, "Pad"):
        return len(node.input) > _PAD_AXES and bool(node.input[_PAD_AXES])
    ways = {given.get("coordinate_transformation_mode"), given.get("mode")}
    odd = "axes" in given or not ways.isdisjoint(("tf_crop_and_resize", "cubic"))
    return is_op(node, "Resize") and odd


def hold_in_float(model: ModelProto, names: Collection[str]) -> bool:
    """Keep ONNX Runtime from computing with integers what was left in float.

    Where a node stands between a DequantizeLinear and a QuantizeLinear, it puts the integer form
    of the operator there, or moves the axes. It takes no axes past a Reshape, and no scales past
    a sum of one value.

    Args:
        model: The quantized model, which is changed.
        names: Of the nodes that `left_in_float` named.

    Returns:
        Whether anything changed.
    """
    from onnx import helper

    graph = OnnxGraph(model)
    taken = set(all_names(model.graph)) | {node.name for node in graph.nodes}
    nodes = []
    for node in graph.nodes:
        maker = graph.makers.get(node.input[0]) if node.input and node.name in names else None
        if maker is not None and is_op(maker, "DequantizeLinear"):
            value = node.input[0]
            parts = ("alone", "shape", "held")
            alone, shape, held = (fresh_name(f"{value}_{part}", taken) for part in parts)
            nodes.append(helper.make_node("Sum", [value], [alone], alone))
            nodes.append(helper.make_node("Shape", [alone], [shape], shape))
            nodes.append(helper.make_node("Reshape", [alone, shape], [held], held))
            node.input[0] = held
        nodes.append(node)
    changed = len(nodes) > len(model.graph.node)
    if changed:
        assign(model.graph.node, nodes)
    return changed
