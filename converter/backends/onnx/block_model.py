"""An ONNX model of one convolution or of what may replace it, to be quantized and timed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dsconvert.base.predictor import Array
from dsconvert.formats.onnx.tensors import tensor_from

from ...core.fitting.patches import output_size
from ...core.planning.block_weights import block_padding, block_weights
from ...core.planning.cost_model import Block
from ...core.types import Choice
from .emit import block_nodes

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

_OPSET, _IR_VERSION = 17, 8


def block_model(block: Block, choice: Choice | None) -> ModelProto:
    """Write a convolution as a choice says, with the nodes that a rewrite would write.

    Args:
        block: The convolution.
        choice: What replaces it; None for the convolution itself.

    Returns:
        A model of one image (1, C, H, W).

    Raises:
        InputError: If nothing comes out of the block, or the choice leaves open what is written.
    """
    from onnx import TensorProto, helper

    drawn = block_weights(block, choice)
    (top, bottom), (left, right) = block_padding(block)[0]
    made = "y" if block.activation == "none" else "linear"
    conv = helper.make_node(
        "Conv",
        ["x", "kernel", "bias"],
        [made],
        "block",
        kernel_shape=block.kernel_size,
        strides=block.strides,
        dilations=block.dilation,
        pads=[top, left, bottom, right],
    )
    nodes: list[NodeProto] = [conv]
    weights: list[TensorProto] = [
        _tensor(drawn.kernel.transpose(3, 2, 0, 1), "kernel"),
        _tensor(drawn.bias, "bias"),
    ]
    if drawn.factors is not None:
        kind = TensorProto.FLOAT
        nodes, weights = block_nodes(
            conv, "block", made, drawn.factors, drawn.bias, kind, _OPSET, str
        )
    if block.activation == "relu":
        nodes.append(helper.make_node("Relu", [made], ["y"], "activation"))
    elif block.activation == "relu6":
        nodes.append(helper.make_node("Clip", [made, "low", "high"], ["y"], "activation"))
        weights += [_tensor(np.zeros(()), "low"), _tensor(np.array(6.0), "high")]
    shapes = {
        "x": (1, block.in_channels, *block.input_size),
        "y": (1, block.out_channels, *output_size(block.spec, block.input_size)),
    }
    first, last = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in shapes.items()
    )
    graph = helper.make_graph(nodes, "block", [first], [last], weights)
    opsets = [helper.make_opsetid("", _OPSET)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)


def _tensor(values: Array, name: str) -> TensorProto:
    from onnx import TensorProto

    return tensor_from(values, name, TensorProto.FLOAT)
