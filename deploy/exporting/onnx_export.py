"""Keras to ONNX."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dsconvert.base.errors import InputError, require
from dsconvert.base.quiet import captured

from ..runtimes.session import first_line
from .keras_source import KerasSource

OPSET = 17
"""The newest in which global average pooling stays one node (18 makes Transpose, ReduceMean)."""


def convert(source: KerasSource, path: Path) -> None:
    """Write the model as an .onnx file, float32, with the model's own names and a free batch.

    tf2onnx leaves the batch normalisation behind a depthwise convolution as a multiplication
    and an addition; ONNX Runtime's basic optimisation, which keeps to standard operators, folds
    them into the convolution.

    Args:
        source: The model. It must have been called.
        path: Where to write.

    Raises:
        InputError: If an operation of the model has no ONNX counterpart.
    """
    onnx = require("onnx", "all", "to write .onnx files")
    require("tf2onnx", "all", "to write .onnx files")
    raw = path.with_suffix(".raw.onnx")
    with captured():
        try:
            source.model.export(str(raw), format="onnx", opset_version=OPSET, verbose=False)
            _optimize(raw, path)
        except Exception as error:  # tf2onnx raises ValueError, KeyError and others
            raise InputError(
                f"ONNX cannot hold this model: {_reason(error)}",
                "Replace the layers named, or export to .tflite.",
            ) from error
    proto = onnx.load(path)
    _name_batch(proto.graph)
    _reorder(proto.graph.input, [info.name for info in source.inputs])
    _reorder(proto.graph.output, source.output_names)
    used = {node.domain for node in proto.graph.node}
    _replace(proto.opset_import, [opset for opset in proto.opset_import if opset.domain in used])
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, path)


def _reason(error: Exception) -> str:
    """What cannot be converted: tf2onnx writes unknown operations into the file as they are."""
    unknown = re.search(r"No Op registered for (\w+)", str(error))
    return f"it has no operation {unknown[1]}." if unknown else first_line(error)


def _optimize(raw: Path, path: Path) -> None:
    """Write the graph as ONNX Runtime's basic optimisation leaves it."""
    ort = require("onnxruntime", "all", "to write .onnx files")
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3  # errors only
    ort.InferenceSession(str(raw), options, providers=["CPUExecutionProvider"])


def _reorder(values: Any, names: Sequence[str]) -> None:
    """Put graph inputs or outputs in the order of these names."""
    by_name = {value.name: value for value in values}
    _replace(values, [by_name[name] for name in names])


def _replace(repeated: Any, values: Sequence[Any]) -> None:
    """Assign to a repeated field of a protobuf, which allows no assignment."""
    copies = [type(value).FromString(value.SerializeToString()) for value in values]
    del repeated[:]
    repeated.extend(copies)


def _name_batch(graph: Any) -> None:
    """Call the free first axis of every input and output the same."""
    for value in (*graph.input, *graph.output):
        sizes = value.type.tensor_type.shape.dim
        if sizes and not sizes[0].HasField("dim_value"):
            sizes[0].dim_param = "batch"
