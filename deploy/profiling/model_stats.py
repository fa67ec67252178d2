"""Operators, MACs and bytes of a .tflite or .onnx file."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from dsconvert.base.predictor import Shape
from dsconvert.formats.stats import ModelStats

from ..runtimes.unknown_files import check_runs_apart


def model_stats(path: Path, shapes: Sequence[Shape]) -> ModelStats:
    """Read a file.

    Args:
        path: A .tflite or .onnx file that its runtime has loaded.
        shapes: The shapes of the inputs of one invocation, for what the file leaves free.

    Returns:
        Its facts. A file that cannot be read gives a reason for each figure.
    """
    try:
        if path.suffix.lower() == ".tflite":
            from dsconvert.formats.tflite.stats import read_tflite

            return read_tflite(path, shapes, partial(check_runs_apart, path))
        from dsconvert.formats.onnx.stats import read_onnx

        return read_onnx(path, shapes)
    except Exception as error:  # what the parsers raise shares no base class
        lines = str(error).strip().splitlines()
        reason = f"unavailable: {lines[0][:200] if lines else type(error).__name__}"
        return ModelStats((), reason, reason, reason)
