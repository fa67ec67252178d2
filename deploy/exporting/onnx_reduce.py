"""Smaller .onnx files that need no data: float16, and int8 weights with dynamic activations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dsconvert.base.errors import InputError, require
from dsconvert.formats.onnx.messages import assign

from ..runtimes.session import first_line
from .onnx_static import quietly


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
    with quietly():
        try:
            quantization.quantize_dynamic(
                str(source),
                str(path),
                per_channel=True,
                weight_type=quantization.QuantType.QUInt8,
                use_external_data_format=external,
            )
        except Exception as error:  # onnx's, ONNX Runtime's and plain ValueErrors
            raise InputError(
                f"ONNX Runtime cannot quantize {source.name}: {first_line(error)}",
                "Try --quantize int8 with calibration data, or float16.",
            ) from error


def to_float16(proto: Any, *, keep_io: bool = True) -> Any:
    """A float32 `onnx.ModelProto` with float16 weights and activations.

    Operators without a float16 kernel, and values out of its range, stay float32.

    Args:
        proto: The model with its weights in it; it may be changed.
        keep_io: Whether inputs and outputs stay float32.

    Returns:
        The converted model.

    Raises:
        InputError: If ONNX Runtime's converter does not take it.
    """
    float16 = require("onnxruntime.transformers.float16", "onnx", "to write float16 .onnx files")
    tools = require("onnxruntime.quantization.onnx_model", "onnx", "to write float16 .onnx files")
    _free_weights(proto)
    with quietly():
        try:
            converted = float16.convert_float_to_float16(proto, keep_io_types=keep_io)
            model = tools.ONNXModel(converted)
            model.topological_sort()  # the converter appends the casts of the inputs
        except Exception as error:  # whatever the converter meets
            raise InputError(
                f"ONNX Runtime cannot convert the model to float16: {first_line(error)}",
                "Try --quantize int8 with calibration data.",
            ) from error
    return model.model


def _free_weights(proto: Any) -> None:
    """Take weights off the inputs, where files of before IR version 4 list them.

    As inputs they would stay float32, with a cast behind each.
    """
    held = {tensor.name for tensor in proto.graph.initializer}
    fed = [value for value in proto.graph.input if value.name not in held]
    if len(fed) < len(proto.graph.input):
        assign(proto.graph.input, fed)
        proto.ir_version = max(proto.ir_version, 4)
