"""Smaller .onnx files that need no data: float16, and int8 weights with dynamic activations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dsconvert.base.errors import InputError, require
from dsconvert.formats.onnx.branches import name_apart
from dsconvert.formats.onnx.constants import constant_of
from dsconvert.formats.onnx.graph import (
    OnnxGraph,
    all_names,
    fresh_name,
    is_op,
    name_nodes,
    reads_of,
)
from dsconvert.formats.onnx.inlining import read_as
from dsconvert.formats.onnx.messages import assign
from dsconvert.formats.onnx.nodes import nodes_of
from dsconvert.formats.onnx.open import load
from dsconvert.formats.onnx.sorting import sort_nodes
from dsconvert.formats.onnx.tensors import constant_value, free_weights

from ..runtimes.session import first_line
from .onnx_misread import operators_to_quantize
from .onnx_outputs import give_back, take_echoes
from .onnx_resize import hold_scales
from .onnx_static import quantizing, quietly

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto


def quantize_dynamic(source: Path, path: Path, *, external: bool = False) -> None:
    """Write a float32 .onnx file with int8 weights, its activations quantized while it runs.

    Weights are unsigned: ONNX Runtime's convolution of signed ones was measured to take twice as
    long (60 instead of 32 µs), at the same SQNR.

    Args:
        source: The float32 file.
        path: Where to write.
        external: Whether to write large weights to a file beside.

    Raises:
        InputError: If ONNX Runtime cannot quantize the file.
    """
    quantization = require("onnxruntime.quantization", "onnx", "to quantize .onnx files")
    with quantizing("Try --quantize int8 with calibration data, or float16."):
        quantization.quantize_dynamic(
            str(source),
            str(path),
            op_types_to_quantize=operators_to_quantize(load(source)),
            per_channel=True,
            weight_type=quantization.QuantType.QUInt8,
            use_external_data_format=external,
        )


def to_float16(model: ModelProto, *, keep_io: bool = True) -> ModelProto:
    """Return a float32 model with float16 weights and activations.

    Operators without a float16 kernel stay float32, and so do nodes that read a constant that
    float16 cannot hold: with a value above 65504, or with none in the range of full precision.

    Args:
        model: The model with its weights in it; it may be changed.
        keep_io: Whether inputs and outputs stay float32.

    Returns:
        The converted model.

    Raises:
        InputError: If ONNX Runtime's converter does not take it.
    """
    float16 = require("onnxruntime.transformers.float16", "onnx", "to write float16 .onnx files")
    free_weights(model)
    name_apart(model)
    hold_scales(model)
    _hold_in_tensors(model)
    echoes = take_echoes(model)
    nodes = _out_of_range(OnnxGraph(model))
    kept = name_nodes(model, nodes) if nodes else []
    with quietly():
        try:
            converted = float16.convert_float_to_float16(
                model, keep_io_types=keep_io, node_block_list=kept
            )
        except Exception as error:  # whatever the converter meets
            raise InputError(
                f"ONNX Runtime cannot convert the model to float16: {first_line(error)}",
                "Try --quantize int8 with calibration data.",
                code="not-quantizable",
            ) from error
    result: ModelProto = converted
    sort_nodes(result)  # the converter appends the casts of the inputs
    give_back(result, echoes)
    return result


def _hold_in_tensors(model: ModelProto) -> None:
    """Let constants of numbers be tensors, and outputs that are weights be computed.

    The converter leaves the first as they are, and casts the second before it makes them.
    """
    from onnx import helper, numpy_helper

    for node in nodes_of(model.graph):
        value = constant_value(node, None) if is_op(node, "Constant") else None
        if value is not None and node.attribute[0].name != "value":
            tensor = numpy_helper.from_array(value)
            assign(node.attribute, [helper.make_attribute("value", tensor)])
    taken = set(all_names(model.graph))
    held = {tensor.name: tensor for tensor in model.graph.initializer}
    for name in [output.name for output in model.graph.output if output.name in held]:
        held[name].name = fresh_name(f"{name}_held", taken)
        for node in model.graph.node:
            read_as(node, {name: held[name].name})
        made = helper.make_node("Identity", [held[name].name], [name], fresh_name(name, taken))
        model.graph.node.append(made)


def _out_of_range(graph: OnnxGraph) -> list[NodeProto]:
    """Return the nodes that read a float constant that float16 cannot hold."""
    limits = np.finfo(np.float16)
    bad = set()
    for name in graph.stored:
        value = constant_of(graph, name)
        if value is None or value.dtype != np.float32 or not value.any():
            continue
        largest = float(np.abs(value).max())
        if largest > float(limits.max) or largest < float(limits.tiny):
            bad.add(name)
    return [node for node in graph.nodes if not bad.isdisjoint(reads_of(node))]
