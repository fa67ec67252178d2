"""Keras to TFLite."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dsconvert.base.errors import InputError, require
from dsconvert.base.files import is_unwritable
from dsconvert.base.predictor import Array
from dsconvert.base.quiet import captured
from dsconvert.formats.quantization import Quantization

from ..runtimes.samples import portions
from ..runtimes.session import first_line
from ..schemes import SCHEMES
from .equal_forms import MOST_STEPS, equal_forms
from .free_sizes import FreeSizesRefused
from .in_neither_format import what_helps
from .keras_source import KerasSource
from .layer_paths import layers_in_paths, told_integers, told_layers
from .plain_names import unique
from .tflite_ranges import widen_zero_ranges, zero_note

_PLACE = re.compile(r'fused\["\w+:", "([^"@]+)@')
_KIND = re.compile(r'fused\["(\w+):"')
"""Where the converter's messages place a complaint, and in what kind of operation."""


def convert(
    source: KerasSource,
    path: Path,
    quantize: Quantization,
    calibration: Sequence[Array] | None,
    *,
    allow_flex: bool = False,
    traced_for: Quantization | None = None,
    ranges: Callable[[bytes], bytes] | None = None,
    kept: Path | None = None,
) -> tuple[str, ...]:
    """Write the model as a .tflite file with one signature and a batch of 1, if it has no own.

    A free batch would make the converter wrap every dilated convolution in SPACE_TO_BATCH and
    BATCH_TO_SPACE; other free sizes stay free and are set when running.

    Args:
        source: The model.
        path: Where to write.
        quantize: How to store weights and activations.
        calibration: For int8 and int16x8, one array per input, (n, ...): the activations' ranges
            come from all of them.
        allow_flex: Whether operations that TFLite lacks may stay TensorFlow's own.
        traced_for: Give it the operations of a file of this kind, to be compared with it.
        ranges: Returns the calibrated model with other ranges than the measured ones.
        kept: A folder in which what files of this model, calibration and kind share is found or
            left: its SavedModel and the measured ranges. None: nothing is.

    Returns:
        What the user of the file should know.

    Raises:
        InputError: If TFLite has no kernel for an operation of the model.
    """
    tf = require("tensorflow", "keras", "to write .tflite files")
    names = input_tensor_names(source)
    with tempfile.TemporaryDirectory() as folder, captured():
        saved = saved_model(tf, source, names, kept or Path(folder), traced_for or quantize)
        converter = tf.lite.TFLiteConverter.from_saved_model(str(saved))
        data = None
        if calibration is not None:
            data = partial(batch_by_batch, source, names, calibration)
        calibrated = None if kept is None else kept / "calibrated.tflite"
        zero = _set_up(tf, converter, quantize, data, ranges, calibrated)
        if allow_flex:
            converter.target_spec.supported_ops.append(tf.lite.OpsSet.SELECT_TF_OPS)
        try:
            flatbuffer = converter.convert()
        except Exception as error:  # ConverterError, RuntimeError or ValueError, by the stage
            raise unsupported_operation(error, source, quantize) from error
    path.write_bytes(in_order(flatbuffer, names, source.output_names))
    return (*_notes(source, names, quantize, path), *zero_note(zero))


def converted(model: Any, quantize: Quantization, calibration: Array) -> bytes:
    """Convert a model that is only to be timed: in a tenth of the time, without a SavedModel.

    Args:
        model: A functional `keras.Model` of one input, of a fixed size, and any outputs. A free
            batch becomes 1.
        quantize: How to store weights and activations.
        calibration: For int8 and int16x8, (n, ...).

    Returns:
        A .tflite file, whose outputs stand in the model's order. What they are called is lost.
    """
    tf = require("tensorflow", "keras", "to write .tflite files")
    (given,) = model.inputs
    function = tf.function(lambda image: model(image, training=False), autograph=False)
    with captured():
        shape = (given.shape[0] or 1, *given.shape[1:])
        traced = function.get_concrete_function(tf.TensorSpec(shape, given.dtype))
        converter = tf.lite.TFLiteConverter.from_concrete_functions([traced], model)
        converter.experimental_lower_to_saved_model = False
        _set_up(tf, converter, quantize, lambda: ([image[None]] for image in calibration))
        return bytes(converter.convert())


def _set_up(
    tf: Any,
    converter: Any,
    quantize: Quantization,
    calibration: Callable[[], Iterator[Any]] | None,
    ranges: Callable[[bytes], bytes] | None = None,
    kept: Path | None = None,
) -> list[str]:
    """Tell a converter what to make.

    Args:
        tf: TensorFlow.
        converter: What is told.
        quantize: How to store weights and activations.
        calibration: One sample after the other, as the converter takes them, each time anew.
        ranges: Returns the calibrated model with other ranges than the measured ones.
        kept: See `widen_zero_ranges`.

    Returns:
        A list that will hold the names of tensors that are zero on all of these samples.
    """
    scheme = SCHEMES[quantize]
    converter.target_spec.supported_ops = [getattr(tf.lite.OpsSet, scheme.kernels)]
    if quantize != "none":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantize == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if scheme.static and calibration is not None:
        kind = getattr(tf, scheme.io)
        converter.inference_input_type = converter.inference_output_type = kind
        converter.representative_dataset = calibration
        return widen_zero_ranges(converter, ranges, kept)
    return []


def flex_ops(path: Path) -> tuple[str, ...]:
    """TensorFlow's own operations in a .tflite file, which need the Flex delegate to run."""
    schema = require("ai_edge_litert.schema_py_generated", "keras", "to read .tflite files")
    model = schema.Model.GetRootAs(path.read_bytes())
    codes = (model.OperatorCodes(i).CustomCode() for i in range(model.OperatorCodesLength()))
    names = {code.decode() for code in codes if code}
    return tuple(sorted(n.removeprefix("Flex") for n in names if n.startswith("Flex")))


def _with_loops(loops: Sequence[str], quantize: Quantization) -> InputError:
    """Return the refusal of recurrent layers that TensorFlow's calibrator crashes on."""
    return InputError(
        f"TFLite cannot hold this model{_quantized(quantize)}: TensorFlow's calibrator crashes on "
        f"loops, and {', '.join(dict.fromkeys(loops))} cannot be spelled out step by step: at most "
        f"{MOST_STEPS} steps, of a fixed number, can.",
        "Try --quantize dynamic, or fix the number of steps (--input-size).",
        code="not-convertible",
    )


def saved_model(
    tf: Any, source: KerasSource, names: Sequence[str], folder: Path, quantize: Quantization
) -> Path:
    """Return a SavedModel whose signature has these input names: the one there, or a new one.

    Keras' ExportArchive tracks the variables alone. Saving a tf.Module that tracks the Keras
    model leaves VAR_HANDLE and READ_VARIABLE operations, and unfused convolutions, in the file.

    Args:
        tf: TensorFlow.
        source: The model.
        names: Of its inputs.
        folder: Where it is, or is written.
        quantize: What it is written for.

    Raises:
        InputError: If the model cannot be traced, or has loops where activations are quantized.
    """
    path, unfinished = folder / "saved_model", folder / "unfinished"
    if path.exists():
        return path
    keras = require("keras", "keras", "to export Keras models")
    archive = keras.export.ExportArchive()
    archive.track(source.model)
    try:
        with equal_forms(source.model, "tflite", quantize) as loops:
            archive.add_endpoint(
                "serve",
                lambda *inputs: source.model(list(inputs), training=False),
                input_signature=[
                    tf.TensorSpec(
                        (source.batch, *info.shape[1:]) if info.shape else (),
                        info.dtype,
                        name=name,
                    )
                    for info, name in zip(source.inputs, names, strict=True)
                ],
            )
            archive.write_out(str(unfinished), verbose=False)
    except Exception as error:  # what Keras and TensorFlow raise while they trace
        if is_unwritable(error):
            raise
        raise unsupported_operation(error, source, quantize) from error
    if loops:
        raise _with_loops(loops, quantize)
    return unfinished.rename(path)


def batch_by_batch(
    source: KerasSource, names: Sequence[str], arrays: Sequence[Array]
) -> Iterator[dict[str, Array]]:
    """Yield the calibration data as the converter takes it: a batch at a time, by input name."""
    for part in portions(arrays, source.batch):
        yield {
            name: np.asarray(array, info.dtype)
            for name, array, info in zip(names, part, source.inputs, strict=True)
        }


def in_order(flatbuffer: bytes, inputs: Sequence[str], outputs: Sequence[str]) -> bytearray:
    """Return the file with its inputs and outputs in the given order.

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


def input_tensor_names(source: KerasSource) -> tuple[str, ...]:
    """Return what the inputs are called in the file."""
    return unique(_tensor_name(info.name) for info in source.inputs)


def _tensor_name(name: str) -> str:
    """Return a Keras name as TensorFlow allows it: letters, digits, ``_``, ``.`` and ``-``."""
    return re.sub(r"[^\w.-]", "_", name, flags=re.ASCII).lstrip("_-") or "input"


def _quantized(quantize: Quantization) -> str:
    return "" if quantize == "none" else f" with {quantize} quantization"


def unsupported_operation(
    error: Exception, source: KerasSource, quantize: Quantization
) -> InputError:
    """Return the refusal of a model, from the converter's message of many lines."""
    text = str(error)
    selectable = re.findall(r"TF Select ops: ([\w, ]+)", text)
    custom = re.findall(r"Custom ops: ([\w, ]+)", text)
    told, hint = first_line(error), "Replace the layers named, or export to .onnx."
    integers, other = told_integers(source.model, "tflite")
    if selectable or custom:
        lacking = _listed(selectable + custom)
        where = told_layers(layers_in_paths(_PLACE.findall(text), source.model))
        told = f"no TFLite kernel for {', '.join(lacking)}{where}."
    elif integers:
        told, hint = integers, other
    elif kinds := _listed(set(_KIND.findall(text)) - {"StatefulPartitionedCall"}):
        where = told_layers(layers_in_paths(_PLACE.findall(text), source.model))
        told = f"TensorFlow's converter fails at {', '.join(sorted(kinds))}{where}."
        hint = hint if where else "Export to .onnx."
    if source.free_inputs:
        return FreeSizesRefused("TFLite", source.free_inputs, told, _quantized(quantize))
    if selectable and not custom:
        hint = (
            "Replace what is named, export to .onnx, or keep TensorFlow's own operations with "
            "--allow-flex: what runs the file must then bring the Flex delegate."
        )
    elif custom:
        hint = (
            f"Replace what is named, or export to .onnx: {', '.join(_listed(custom))} would need a "
            "kernel of your own in what runs the file, which --allow-flex cannot give."
        )
    elif SCHEMES[quantize].static and not integers:
        less = "int8, dynamic" if quantize == "int16x8" else "dynamic"
        hint = f"Try --quantize {less} or float16."
    return InputError(
        f"TFLite cannot hold this model{_quantized(quantize)}: {told}",
        what_helps(told, hint),
        code="not-convertible",
    )


def _listed(found: Iterable[str]) -> list[str]:
    """Names from comma-separated lists, each once."""
    return list(dict.fromkeys(name.strip() for text in found for name in text.split(",")))


def _notes(
    source: KerasSource, names: Sequence[str], quantize: Quantization, path: Path
) -> tuple[str, ...]:
    """Return what the user of the file should know."""
    notes = [
        f"input {info.name!r} is called {name!r}: the format allows letters, digits, _ . and -"
        for info, name in zip(source.inputs, names, strict=True)
        if name != info.name
    ]
    if quantize == "float16":
        notes.append("float16 is stored; a CPU computes in float32")
    if quantize == "dynamic" and not _holds_int8(path):
        notes.append(
            "nothing was quantized: TFLite leaves tensors of fewer than 1,024 weights in float32; "
            "float16 and int8 take small ones too"
        )
    flex = flex_ops(path)
    if flex:
        notes.append(
            f"keeps TensorFlow's own operations {', '.join(flex)}: what runs the file must bring "
            "the Flex delegate (Android: org.tensorflow:tensorflow-lite-select-tf-ops)"
        )
    return tuple(notes)


def _holds_int8(path: Path) -> bool:
    """Tell whether any tensor of a .tflite file is stored as int8."""
    schema = require("ai_edge_litert.schema_py_generated", "keras", "to read .tflite files")
    model = schema.Model.GetRootAs(path.read_bytes())
    graphs = [model.Subgraphs(i) for i in range(model.SubgraphsLength())]
    return any(
        graph.Tensors(i).Type() == schema.TensorType.INT8
        for graph in graphs
        for i in range(graph.TensorsLength())
    )
