"""How a model file stores its numbers, read from the file itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dsconvert.base.errors import InputError, require
from dsconvert.base.quiet import captured
from dsconvert.formats.onnx.half import HALF
from dsconvert.formats.onnx.open import load

from .registry import runtime_for
from .runtime import Precision
from .session import first_line

__all__ = ["Precision", "precision_of"]

_QUANTIZED_OPS = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")


def precision_of(path: str | Path) -> Precision:
    """Return the precision of a .tflite or .onnx file.

    Raises:
        InputError: If the file is of another kind or cannot be read.
        MissingExtra: If what reads it is not installed.
    """
    path = Path(path)
    runtime_for(path)
    try:
        return _of_tflite(path) if path.suffix.lower() == ".tflite" else _of_onnx(path)
    except ImportError:
        raise
    except Exception as error:  # what the parsers raise shares no base class
        raise InputError(
            f"{path} cannot be read: {first_line(error)}", code="file-unreadable"
        ) from error


def _of_tflite(path: Path) -> Precision:
    litert = require("ai_edge_litert.interpreter", "keras", "to read .tflite files")
    with captured():
        tensors: list[Any] = litert.Interpreter(model_path=str(path)).get_tensor_details()
    scales = [len(tensor["quantization_parameters"]["scales"]) for tensor in tensors]
    if any(scales):
        return "int8"
    kinds = {getattr(tensor["dtype"], "__name__", str(tensor["dtype"])) for tensor in tensors}
    return "float16" if "float16" in kinds else "float32"


def _of_onnx(path: Path) -> Precision:
    model = load(path)
    kinds = {node.op_type for node in model.graph.node}
    if any(kind in _QUANTIZED_OPS or kind.endswith("Integer") for kind in kinds):
        return "int8"
    if any(kind.startswith("QLinear") for kind in kinds):
        return "int8"
    half = any(tensor.data_type in HALF for tensor in model.graph.initializer)
    return "float16" if half else "float32"
