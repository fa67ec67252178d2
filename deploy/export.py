"""Keras to .tflite and .onnx files that were seen to give the model's outputs."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import numpy as np
from dsconvert.converter.core.errors import InputError, require
from dsconvert.converter.core.files import check_writable, replacing, sha256
from dsconvert.converter.core.predictor import Array
from dsconvert.converter.core.progress import Progress, silent

from . import onnx_export, tflite
from .keras_source import KerasSource, read_source
from .runtimes import open_runtime
from .samples import check_inputs, count_samples, random_count, random_inputs
from .types import Artifact, Format, Quantization, VerifiedOn
from .verify import verify

_SAMPLES = 32
_FREE_SIZE = 64
"""Height, width and other free sizes of random verification inputs."""
_ALLOWED: dict[Format, tuple[Quantization, ...]] = {
    "tflite": ("none", "float16", "dynamic", "int8"),
    "onnx": ("none",),
}
_PACKAGES: dict[Format, tuple[str, ...]] = {
    "tflite": ("keras", "ai-edge-litert", "dsconvert"),
    "onnx": ("keras", "tf2onnx", "onnx", "onnxruntime", "dsconvert"),
}

Data = Sequence[Array] | Array
"""One array per input, (n, ...), or the array itself if there is one input; preprocessed."""


def export(
    model: Any,
    path: str | Path,
    *,
    format: Format | None = None,
    quantize: Quantization = "none",
    calibration: Data | None = None,
    verification: Data | None = None,
    overwrite: bool = False,
    source_sha256: str = "",
    input_names: Sequence[str] = (),
    output_names: Sequence[str] = (),
    gate: bool = True,
    seed: int = 0,
    progress: Progress = silent,
) -> Artifact:
    """Convert a Keras model, compare the file's outputs with the model's, and put it in place.

    The file is run in its real runtime before it takes its place: on the verification data, else
    on up to 32 samples of the calibration data, else on random inputs.

    Args:
        model: A `keras.Model`; it is not changed.
        path: The file to write, ``.tflite`` or ``.onnx``.
        format: The format; by default what the suffix says.
        quantize: ``"none"``: float32. ``"float16"``: float16 weights. ``"dynamic"``: int8 weights.
            ``"int8"``: int8 weights and activations, int8 in and out.
        calibration: Typical inputs, for the ranges of int8 activations.
        verification: Inputs to compare outputs on; better not those of the calibration.
        overwrite: Whether an existing file may be replaced.
        source_sha256: The hash of the model file, to be kept in the artifact.
        input_names: What to call the inputs in a .tflite file; by default as in the model.
        output_names: What to call the outputs in the file; by default as in the model.
        gate: Whether to compare the outputs at all; False for a file that is only timed.
        seed: Of random verification inputs.
        progress: Told of three steps: run the model, convert, verify.

    Raises:
        InputError: If an option, the data or the model cannot be used.
        GateFailed: If the outputs differ too much; the thresholds are in `verify`.
        MissingExtra: If a package that the format needs is not installed.
    """
    path = Path(path)
    format = _checked_format(path, format, quantize)
    if quantize == "int8" and calibration is None:
        raise InputError(
            "int8 quantization needs calibration data: typical inputs, preprocessed as for the "
            "model, to choose the ranges of its activations.",
            f"Try: dsconvert export MODEL -o {path} --quantize int8 --calibration DATA.npz",
        )
    check_writable(path, overwrite=overwrite)
    with progress(f"Exporting {path.name}", 3) as advance:
        given = calibration if verification is None else verification
        samples = None if given is None else _arrays(given)
        called = input_names if format == "tflite" else ()
        source = read_source(model, samples, called, output_names)
        if calibration is not None:
            calibration = check_inputs(calibration, source.inputs, "calibration data")
            count_samples(calibration, "calibration data")
        inputs, verified_on = _verification_inputs(source, calibration, verification, seed)
        references = source.predict(inputs)
        advance()
        with replacing(path, overwrite=overwrite) as temporary:
            if format == "tflite":
                notes = tflite.convert(source, temporary, quantize, calibration)
            else:
                onnx_export.convert(source, temporary)
                notes = ()
            advance()
            names = source.output_names
            fidelity = (
                verify(temporary, names, references, inputs, quantize, verified_on) if gate else ()
            )
            runtime = open_runtime(temporary)
            artifact = Artifact(
                path=str(path),
                format=format,
                quantization=quantize,
                size_bytes=temporary.stat().st_size,
                sha256=sha256(temporary),
                source_sha256=source_sha256,
                tools=tools(*_PACKAGES[format]),
                inputs=runtime.inputs,
                outputs=runtime.outputs,
                fidelity=fidelity,
                verified_on=verified_on,
                samples=len(inputs[0]),
                notes=source.notes + notes,
            )
            advance()
    return artifact


def _checked_format(path: Path, format: Format | None, quantize: Quantization) -> Format:
    """The format to write.

    Raises:
        InputError: If the suffix names none or another, or it cannot be quantized so.
    """
    suffix = path.suffix.lower().removeprefix(".")
    known = {name: name for name in get_args(Format)}
    if suffix not in known or (format is not None and suffix != format):
        wanted = f".{format}" if format in known else " or ".join(f".{name}" for name in known)
        raise InputError(f"cannot export to {path}: the file name must end in {wanted}.")
    chosen: Format = known[suffix]
    if quantize not in _ALLOWED[chosen]:
        raise InputError(
            f"cannot write {path} with quantization {quantize!r}: "
            f".{chosen} allows {', '.join(_ALLOWED[chosen])}."
        )
    return chosen


def _arrays(data: Data) -> Sequence[Array]:
    """The data as one array per input."""
    return [data] if isinstance(data, np.ndarray) else [np.asarray(array) for array in data]


def _verification_inputs(
    source: KerasSource, calibration: Sequence[Array] | None, verification: Data | None, seed: int
) -> tuple[tuple[Array, ...], VerifiedOn]:
    """What to compare the outputs on, and what to call it."""
    if verification is not None:
        data = check_inputs(verification, source.inputs, "verification data")
        count_samples(data, "verification data")
        return data, "verification data"
    if calibration is not None:
        return tuple(array[:_SAMPLES] for array in calibration), "calibration data"
    count = random_count(source.inputs, _FREE_SIZE)
    return random_inputs(source.inputs, count, seed, _FREE_SIZE), "random inputs"


def tools(*packages: str) -> dict[str, str]:
    """The versions of TensorFlow and of the other packages that took part."""
    # TensorFlow is installed under several package names: tensorflow, tensorflow-cpu…
    tensorflow = require("tensorflow", "keras", "to export Keras models")
    return {"tensorflow": tensorflow.__version__} | {
        package: version(package) for package in packages
    }
