"""Static int8 quantization of an .onnx file by ONNX Runtime's own quantizer: QDQ, per channel."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from dsconvert.converter.core.errors import InputError, require
from dsconvert.converter.core.predictor import Array

from .quiet import captured
from .runtime import first_line


def quantize_static(source: Path, path: Path, calibration: Sequence[Array]) -> None:
    """Write the int8 form of a float32 .onnx file.

    Weights have a scale per output channel and are symmetric; activations are unsigned, their
    ranges the least and the greatest value on the calibration data.

    Args:
        source: The float32 file.
        path: Where to write.
        calibration: One array per input, (n, ...), as the file takes them.

    Raises:
        InputError: If ONNX Runtime cannot quantize the file.
    """
    quantization = require("onnxruntime.quantization", "onnx", "to quantize .onnx files")
    ort = require("onnxruntime", "onnx", "to quantize .onnx files")
    session = ort.InferenceSession(str(source), providers=["CPUExecutionProvider"])
    inputs = session.get_inputs()
    size = inputs[0].shape[0] if isinstance(inputs[0].shape[0], int) else 1
    names = [item.name for item in inputs]

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self.start = 0

        def get_next(self) -> dict[str, Array] | None:
            rows = slice(self.start, self.start + size)
            self.start += size
            batch = [array[rows] for array in calibration]
            return dict(zip(names, batch, strict=True)) if len(batch[0]) == size else None

    logger = logging.getLogger()
    level = logger.level
    try:
        logger.setLevel(logging.ERROR)  # it advises to preprocess the file, on the root logger
        with captured():
            quantization.quantize_static(
                str(source),
                str(path),
                Reader(),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                extra_options={"ActivationSymmetric": False, "WeightSymmetric": True},
            )
    except Exception as error:  # onnx's, ONNX Runtime's and plain ValueErrors
        raise InputError(
            f"ONNX Runtime cannot quantize {source.name}: {first_line(error)}",
            "Plan or export for float32 instead.",
        ) from error
    finally:
        logger.setLevel(level)
