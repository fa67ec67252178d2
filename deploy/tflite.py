"""Keras to TFLite."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from dsconvert.converter.core.errors import InputError, require
from dsconvert.converter.core.predictor import Array

from .keras_source import KerasSource, unique
from .quiet import captured
from .runtime import first_line
from .types import Quantization


def convert(
    source: KerasSource,
    path: Path,
    quantize: Quantization,
    calibration: Sequence[Array] | None,
) -> tuple[str, ...]:
    """Write the model as a .tflite file with one signature and a batch of 1.

    A free batch would make the converter wrap every dilated convolution in SPACE_TO_BATCH and
    BATCH_TO_SPACE; other free sizes stay free and are set when running.

    Args:
        source: The model.
        path: Where to write.
        quantize: How to store weights and activations.
        calibration: For int8, one array per input, (n, ...): the activations' ranges come from
            all of them.

    Returns:
        What the user of the file should know.

    Raises:
        InputError: If TFLite has no kernel for an operation of the model.
    """
    tf = require("tensorflow", "keras", "to write .tflite files")
    names = unique(_tensor_name(info.name) for info in source.inputs)
    with tempfile.TemporaryDirectory() as folder, captured():
        _save(tf, source, names, folder)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        if quantize != "none":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if quantize == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if quantize == "int8" and calibration is not None:
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = converter.inference_output_type = tf.int8
            converter.representative_dataset = lambda: _one_by_one(source, names, calibration)
        try:
            flatbuffer = converter.convert()
        except Exception as error:  # ConverterError, RuntimeError or ValueError, by the stage
            raise InputError(
                f"TFLite cannot hold this model{_quantized(quantize)}: {_reason(error)}",
                "Replace the layers named, or export to .onnx.",
            ) from error
    path.write_bytes(_in_order(flatbuffer, names, source.output_names))
    return _notes(source, names, quantize)


def _save(tf: Any, source: KerasSource, names: Sequence[str], folder: str) -> None:
    """Write a SavedModel whose signature has these input names.

    Keras' ExportArchive tracks the variables alone. Saving a tf.Module that tracks the Keras
    model leaves VAR_HANDLE and READ_VARIABLE operations, and unfused convolutions, in the file.
    """
    keras = require("keras", "keras", "to export Keras models")
    archive = keras.export.ExportArchive()
    archive.track(source.model)
    archive.add_endpoint(
        "serve",
        lambda *inputs: source.model(list(inputs), training=False),
        input_signature=[
            tf.TensorSpec((1, *info.shape[1:]), info.dtype, name=name)
            for info, name in zip(source.inputs, names, strict=True)
        ],
    )
    archive.write_out(folder, verbose=False)


def _one_by_one(
    source: KerasSource, names: Sequence[str], arrays: Sequence[Array]
) -> Iterator[dict[str, Array]]:
    """The calibration data as the converter takes it: one sample at a time, by input name."""
    for i in range(len(arrays[0])):
        yield {
            name: np.asarray(array[i : i + 1], info.dtype)
            for name, array, info in zip(names, arrays, source.inputs, strict=True)
        }


def _in_order(flatbuffer: bytes, inputs: Sequence[str], outputs: Sequence[str]) -> bytearray:
    """The file with its inputs and outputs in the given order.

    The converter sorts them by name. The order stands in two vectors of tensor indices, which
    are permuted in place: packing the file anew would lose the alignment of its weights.
    """
    schema = require("ai_edge_litert.schema_py_generated", "keras", "to write .tflite files")
    buffer = bytearray(flatbuffer)
    model = schema.Model.GetRootAs(buffer)
    graph, signature = model.Subgraphs(0), model.SignatureDefs(0)
    for vector, tensor, length, wanted in (
        (graph.InputsAsNumpy(), signature.Inputs, signature.InputsLength(), inputs),
        (graph.OutputsAsNumpy(), signature.Outputs, signature.OutputsLength(), outputs),
    ):
        index = {tensor(i).Name().decode(): tensor(i).TensorIndex() for i in range(length)}
        vector[:] = [index[name] for name in wanted]
    return buffer


def _tensor_name(name: str) -> str:
    """A Keras name as TensorFlow allows it: letters, digits, ``_``, ``.`` and ``-``."""
    return re.sub(r"[^\w.-]", "_", name, flags=re.ASCII).lstrip("_-") or "input"


def _quantized(quantize: Quantization) -> str:
    return "" if quantize == "none" else f" with {quantize} quantization"


def _reason(error: Exception) -> str:
    """What the converter could not convert, from its message of many lines."""
    operations = re.findall(r"(?:TF Select ops|Custom ops): ([\w, ]+)", str(error))
    if operations:
        return f"no TFLite kernel for {', '.join(operations)}."
    return first_line(error)


def _notes(source: KerasSource, names: Sequence[str], quantize: Quantization) -> tuple[str, ...]:
    """What the user of the file should know."""
    notes = [
        f"input {info.name!r} is called {name!r}: the format allows letters, digits, _ . and -"
        for info, name in zip(source.inputs, names, strict=True)
        if name != info.name
    ]
    if quantize == "float16":
        notes.append("float16 is stored; a CPU computes in float32")
    return tuple(notes)
