"""Keras and ONNX models to .tflite and .onnx files that were seen to give the model's outputs."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from dsconvert.base.errors import InputError, require
from dsconvert.base.files import check_writable, replacing, sha256
from dsconvert.base.output_fidelity import warnings
from dsconvert.base.predictor import Array
from dsconvert.base.progress import Progress, silent
from dsconvert.formats.onnx.open import load
from dsconvert.formats.onnx.save import data_path, save
from dsconvert.formats.quantization import Format, Quantization, VerifiedOn

from ..runtimes.registry import open_runtime
from ..runtimes.samples import check_inputs, count_samples, random_samples
from ..runtimes.tensor_info import TensorInfo
from ..schemes import SCHEMES
from ..verification.gate import Verdict, judge, refused
from ..verification.telling_inputs import telling_inputs
from ..verification.tolerances import remarks
from . import rejected, writing
from .export_options import Options, RangeChoice, checked_format
from .held_out import HeldOut, split
from .improve import OFF, Improvement
from .keras_source import KerasSource, read_source
from .metadata import stamp_onnx, stamp_tflite
from .onnx_source import OnnxSource, read_onnx
from .output_choice import needs_choice, needs_split, written_split
from .random_ranges import may_be_rounding, on_another_range
from .records import Artifact, CalibrationRecord, Metadata
from .split_outputs import split_outputs
from .tflite import FreeSizesRefused

_SAMPLES = 32
_FREE_SIZE = 64
"""Height, width and other free sizes of random verification inputs."""
_ONNX_PACKAGES = ("onnx", "onnxruntime", "dsconvert")

Data = Sequence[Array] | Array
"""One array per input, (n, ...), or the array itself if there is one input; preprocessed."""
Source = KerasSource | OnnxSource


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
    calibration_source: str = "",
    calibration_method: RangeChoice = "auto",
    allow_random: bool = False,
    allow_flex: bool = False,
    keep_io: bool = True,
    labels: Sequence[str] = (),
    preprocessing: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
    improvement: Improvement | None = None,
    gate: bool = True,
    seed: int = 0,
    progress: Progress = silent,
) -> Artifact:
    """Convert a model, compare the file's outputs with the model's, and put it in place.

    The file is run in its real runtime before it takes its place: on the verification data, else
    on up to 32 samples of the calibration data, else on random inputs. If it does not pass, it is
    kept beside its place as ``NAME.rejected.tflite`` or ``.onnx``, with the report
    ``NAME.rejected.json``, an `Artifact` with the failures.

    Args:
        model: A `keras.Model`; it is not changed. Or the path of a float32 .onnx file, to make
            another .onnx file of, without TensorFlow.
        path: The file to write, ``.tflite`` or ``.onnx``.
        format: The format; by default what the suffix says.
        quantize: ``"none"``: float32. ``"float16"``: float16 weights, and in .onnx activations.
            ``"dynamic"``: int8 weights. ``"int8"``: int8 weights and activations; in .tflite also
            int8 in and out, in .onnx float32. ``"int8-float-io"``: the same with float32 in and
            out. ``"int16x8"``, .tflite only: int8 weights, int16 activations, in and out.
        calibration: Typical inputs, for the ranges of int8 activations.
        verification: Inputs to compare outputs on; better not those of the calibration.
        overwrite: Whether an existing file may be replaced.
        source_sha256: The hash of the model file, to be kept in the artifact and in the file.
        input_names: What to call the inputs in a .tflite file; by default as in the model.
        output_names: What to call the outputs in the file; by default as in the model.
        calibration_source: What the calibration data are called in the file.
        calibration_method: How .onnx activations get their ranges: from the least to the greatest
            value, by KL divergence, or by percentiles; "auto": by the first or the last, whichever
            gives outputs of higher SQNR.
        allow_random: Whether int8 may be calibrated on random numbers where there are no data; the
            file and the artifact say so.
        allow_flex: Whether a .tflite file may keep TensorFlow's own operations.
        keep_io: Whether a float16 .onnx file has float32 inputs and outputs.
        labels: The names of the classes, to be kept in the file.
        preprocessing: What was done to the stored images, to be kept in the file.
        notes: What the user of the file should know, to begin the artifact's notes with.
        improvement: What is tried to make an int8 file with calibration data better; a fifth of
            them then choose, and give no ranges. By default equal ranges inside pairs and
            corrected biases, each where it helps; nothing with ``gate=False``.
        gate: Whether to compare the outputs at all; the file says if not.
        seed: Of random inputs.
        progress: Told of three steps: run the model, convert, verify.

    Raises:
        InputError: If an option, the data or the model cannot be used.
        GateFailed: If the outputs differ too much; the thresholds are in `verify`.
        MissingExtra: If a package that the format needs is not installed.
    """
    path = Path(path)
    original = Path(model) if isinstance(model, str | Path) else None
    format = checked_format(path, format, quantize, original)
    options = Options(
        quantize=quantize,
        method=calibration_method,
        allow_flex=allow_flex,
        keep_io=keep_io,
        improvement=improvement or (Improvement() if gate else OFF),
    )
    options.check(format)
    static = SCHEMES[quantize].static
    if static and calibration is None and not allow_random:
        raise InputError(
            f"{quantize} quantization needs calibration data: typical inputs, preprocessed as for "
            "the model, to choose the ranges of its activations.",
            f"Try: dsconvert export MODEL -o {path} --quantize {quantize} --calibration DATA.npz "
            "(or --allow-random, for a file that is only to be tried out)",
            code="needs-calibration",
        )
    check_writable(path, overwrite=overwrite)
    with progress(f"Exporting {path.name}", 3) as advance:
        given = calibration if verification is None else verification
        samples = None if given is None else _arrays(given)
        called = input_names if format == "tflite" else ()
        source: Source = (
            read_source(model, samples, called, output_names, alone=format == "tflite")
            if original is None
            else read_onnx(original)
        )
        if getattr(source, "external", False) and data_path(path).exists():
            check_writable(data_path(path), overwrite=overwrite)
        _check_labels(labels, source)
        if calibration is not None:
            calibration = check_inputs(calibration, source.inputs, "calibration data")
            count_samples(calibration, "calibration data")
        random = static and calibration is None
        inputs, verified_on = _verification_inputs(source, calibration, verification, seed)
        if gate and verified_on == "random inputs" and not static:
            inputs, moved = telling_inputs(source.predict, inputs)
            notes = (*notes, moved) if moved else notes
        if random:
            calibration = random_samples(source.inputs, seed, _FREE_SIZE)
        held_out = None
        if (
            static
            and not random
            and calibration is not None
            and needs_choice(options.improvement, source, calibration)
        ):
            calibration, kept_out = split(calibration)
            held_out = HeldOut(kept_out, source.predict(kept_out))
        advance()
        with (
            replacing(path, overwrite=overwrite) as temporary,
            tempfile.TemporaryDirectory() as name,
        ):
            folder = Path(name)
            work = partial(
                writing.convert,
                format=format,
                options=options,
                calibration=calibration,
                samples=inputs,
            )
            if held_out is not None and options.improvement.outputs == "split":
                source, told = split_outputs(source, held_out.inputs, folder)
                notes, held_out = (*notes, told), held_out.of(source)
            try:
                written = work(source, path=temporary, held_out=held_out)
            except FreeSizesRefused:
                if samples is None or original is not None:
                    raise
                source = read_source(
                    model, samples, called, output_names, fix_sizes=True, alone=True
                )
                written = work(source, path=temporary, held_out=held_out)
            if held_out is not None and needs_split(options, written.worst_db):
                found = written_split(work, source, temporary, folder, held_out, written.worst_db)
                if found is not None:
                    source, written, told = found
                    notes = (*notes, told)
            references = source.predict(inputs) if gate else ()
            said = written.notes
            advance()
            ranges = None
            if static and calibration is not None:
                called_data = "random inputs" if random else calibration_source
                ranges = CalibrationRecord(
                    source=called_data or "calibration data",
                    samples=len(calibration[0]),
                    random=random,
                    method=written.method,
                )
            packages = _packages(format, source)
            metadata = Metadata(
                tools=tools(*packages),
                source_sha256=source_sha256 or ("" if original is None else sha256(original)),
                quantization=quantize,
                verified_on=verified_on if gate else "nothing",
                preprocessing=None if preprocessing is None else dict(preprocessing),
                calibration=ranges,
                labels=tuple(labels),
            )
            external = _stamp(temporary, metadata, _layers(source))
            verdict = Verdict((), ())
            if gate:
                unrunnable = writing.flex_operations(temporary)
                if unrunnable:
                    raise InputError(
                        f"{path.name} keeps TensorFlow's own operations {', '.join(unrunnable)}, "
                        "which no runtime here has, so that it cannot be verified.",
                        "Replace the layers, or write the file unverified with --no-verify.",
                        code="needs-flex",
                    )
                verdict = judge(temporary, source.output_names, references, inputs, quantize)
                if verified_on == "random inputs" and may_be_rounding(verdict, quantize):
                    passed = on_another_range(source, temporary, inputs, quantize)
                    if passed is not None:
                        first, (verdict, told) = verdict.failures[0], passed
                        said += (f"{told}; on numbers around 0: {first}",)
            if gate and not verdict.failures:
                said += writing.speed_notes(source, temporary, format, options, inputs)
            ends = ((), ()) if verdict.failures and not verdict.runs else _ends(source, temporary)
            artifact = Artifact(
                path=str(path),
                format=format,
                quantization=quantize,
                size_bytes=sum(file.stat().st_size for file in (temporary, *external)),
                sha256=sha256(temporary),
                source_sha256=metadata.source_sha256,
                tools=metadata.tools,
                inputs=ends[0],
                outputs=ends[1],
                fidelity=verdict.fidelity,
                findings=verdict.findings,
                verified_on=metadata.verified_on,
                samples=len(inputs[0]) if gate else 0,
                preprocessing=metadata.preprocessing,
                calibration=ranges,
                labels=len(labels),
                failures=verdict.failures,
                layers=written.layers,
                notes=(*notes, *source.notes, *said, *_remarks(verdict, random, gate)),
            )
            if verdict.failures:
                _stamp(temporary, msgspec.structs.replace(metadata, rejected=True))
                kept = rejected.keep(temporary, path, artifact)
                error = refused(verdict, path.name, quantize, verified_on)
                error.add_hint(kept)
                raise error
            for file in external:
                file.replace(path.with_name(file.name))
            advance()
    return artifact


def _layers(source: Source) -> frozenset[str]:
    """Return the names of a Keras model's layers, those of nested models included."""
    if isinstance(source, OnnxSource):
        return frozenset()
    return frozenset(layer.name for layer in source.model._flatten_layers())


def _stamp(path: Path, metadata: Metadata, layers: frozenset[str] = frozenset()) -> list[Path]:
    """Write the metadata into the file.

    Returns:
        The files beside it that belong to it.
    """
    if path.suffix.lower() == ".tflite":
        stamp_tflite(path, metadata, layers)
        return []
    beside = data_path(path)
    model = load(path)
    stamp_onnx(model, metadata)
    save(model, path.parent, path, overwrite=True, external=False, check=False)
    return [beside] if beside.exists() else []


def _ends(source: Source, path: Path) -> tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]]:
    """Return the file's inputs and outputs, as its runtime has them."""
    if writing.flex_operations(path):  # which no runtime here can load
        return source.inputs, ()
    runtime = open_runtime(path)
    return runtime.inputs, runtime.outputs


def _remarks(verdict: Verdict, random: bool, gate: bool) -> list[str]:
    """Return what should keep a reader from trusting the file too much."""
    found = [*remarks(verdict.fidelity), *warnings(verdict.findings)]
    if random:
        found.append(
            "calibrated on random numbers: for trying out only, its ranges are not those of images"
        )
    if not gate:
        found.append("not verified: its outputs were never compared with the model's")
    return found


def _check_labels(labels: Sequence[str], source: Source) -> None:
    """Refuse class names that are not one for each class.

    Raises:
        InputError: If no output has as many values.
    """
    if not labels:
        return
    if isinstance(source, OnnxSource):
        shapes = [info.shape for info in source.runtime.outputs]
    else:
        shapes = [tuple(tensor.shape) for tensor in source.model.outputs]
    sizes = [shape[-1] for shape in shapes if shape]
    if None not in sizes and len(labels) not in sizes:
        told = " and ".join(map(str, sizes))
        raise InputError(
            f"there are {len(labels)} labels, and the outputs have {told} values.",
            "Give one name per class, in the order of the classes.",
            code="labels-do-not-fit",
        )


def _arrays(data: Data) -> Sequence[Array]:
    """Return the data as one array per input."""
    return [data] if isinstance(data, np.ndarray) else [np.asarray(array) for array in data]


def _verification_inputs(
    source: Source, calibration: Sequence[Array] | None, verification: Data | None, seed: int
) -> tuple[tuple[Array, ...], VerifiedOn]:
    """Return what to compare the outputs on, and what to call it."""
    if verification is not None:
        data = check_inputs(verification, source.inputs, "verification data")
        count_samples(data, "verification data")
        return data, "verification data"
    if calibration is not None:
        return tuple(array[:_SAMPLES] for array in calibration), "calibration data"
    return random_samples(source.inputs, seed, _FREE_SIZE), "random inputs"


def _packages(format: Format, source: Source) -> tuple[str, ...]:
    """Return the packages that took part."""
    if isinstance(source, OnnxSource):
        return _ONNX_PACKAGES
    if format == "onnx":
        return ("keras", "tf2onnx", *_ONNX_PACKAGES)
    return ("keras", "ai-edge-litert", "dsconvert")


def tools(*packages: str) -> dict[str, str]:
    """Return the versions of the packages that took part, and with Keras of TensorFlow."""
    found = {}
    if "keras" in packages:
        # TensorFlow is installed under several package names: tensorflow, tensorflow-cpu…
        tensorflow = require("tensorflow", "keras", "to export Keras models")
        found["tensorflow"] = tensorflow.__version__
    return found | {package: version(package) for package in packages}
