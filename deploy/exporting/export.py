"""Keras and ONNX models to .tflite and .onnx files that were seen to give the model's outputs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from dsconvert.base.errors import InputError
from dsconvert.base.files import check_writable, replacing, sha256
from dsconvert.base.output_fidelity import warnings
from dsconvert.base.predictor import Array
from dsconvert.base.progress import Progress, silent
from dsconvert.formats.onnx.open import load
from dsconvert.formats.onnx.save import data_path, save
from dsconvert.formats.quantization import Format, Quantization

from ..runtimes.registry import open_runtime
from ..runtimes.samples import samples_of
from ..runtimes.tensor_info import TensorInfo
from ..schemes import SCHEMES
from ..verification.gate import Verdict, check_references, judge, refused
from ..verification.tolerances import remarks
from . import rejected, writing
from .export_data import ExportData, Samples, as_arrays, export_data
from .export_options import Options, RangeChoice, checked_format
from .improve import OFF, Improvement
from .keras_source import KerasSource, read_source, refuse_joined_samples
from .layer_paths import told_integers
from .making import make
from .metadata import stamp_onnx, stamp_tflite
from .onnx_source import OnnxSource, read_onnx
from .random_ranges import may_be_rounding, on_another_range
from .records import Artifact, Metadata
from .source import Source, check_labels, layer_names, tools_of

Beside = Callable[[Artifact, Path], Artifact]
"""Takes the record of a file and where it still is; returns the record with what was made of it."""


def export(
    model: Any,
    path: str | Path,
    *,
    format: Format | None = None,
    quantize: Quantization = "none",
    calibration: Samples | None = None,
    verification: Samples | None = None,
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
    beside: Beside | None = None,
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
        calibration_method: How activations get their ranges: from the least to the greatest
            value, by the least squared error ("mse"), by KL divergence or by percentiles (.onnx
            alone); "auto": by one of the first two, whichever gives outputs of higher SQNR.
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
        beside: Makes other files of the one that passed, before it takes its place: where they
            cannot be made, it does not.
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
    if not allow_random:
        _check_calibrated(path, quantize, calibration)
    check_writable(path, overwrite=overwrite)

    def read(*, fix_sizes: bool = False) -> Source:
        """Return the model; with free sizes fixed to those of the samples, if that is asked."""
        if original is not None:
            return read_onnx(original)
        given = calibration if verification is None else verification
        return read_source(
            model,
            None if given is None else as_arrays(given),
            input_names if format == "tflite" else (),
            output_names,
            fix_sizes=fix_sizes,
            alone=format == "tflite",
        )

    with progress(f"Exporting {path.name}", 3) as advance:
        source = read()
        if isinstance(source, OnnxSource) and source.external and data_path(path).exists():
            check_writable(data_path(path), overwrite=overwrite)
        check_labels(labels, source)
        data = export_data(source, calibration, verification, options, gate=gate, seed=seed)
        advance()
        with (
            replacing(path, overwrite=overwrite) as temporary,
            tempfile.TemporaryDirectory() as folder,
        ):
            fixable = original is None and (calibration is not None or verification is not None)
            made = make(
                source,
                temporary,
                Path(folder),
                format,
                options,
                data,
                reread=partial(read, fix_sizes=True) if fixable else None,
            )
            source, written = made.source, made.written
            references = source.predict(data.compared) if gate else ()
            if gate:
                check_references(source.output_names, references, data.verified_on)
            advance()
            metadata = Metadata(
                tools=tools_of(source, format),
                source_sha256=source_sha256 or ("" if original is None else sha256(original)),
                quantization=quantize,
                verified_on=data.verified_on if gate else "nothing",
                preprocessing=None if preprocessing is None else dict(preprocessing),
                calibration=data.record(calibration_source, written.method),
                labels=tuple(labels),
            )
            external = _stamp(temporary, metadata, layer_names(source))
            verdict, said = Verdict((), ()), written.notes
            if gate:
                _check_runnable(temporary, path)
                verdict, told = _compared(temporary, source, references, data, quantize)
                said += told
                if not verdict.failures:
                    said += writing.speed_notes(source, temporary, format, options, data.compared)
            inputs, outputs = _ends(source, temporary) if verdict.runs else ((), ())
            artifact = Artifact(
                path=str(path),
                format=format,
                quantization=quantize,
                size_bytes=sum(file.stat().st_size for file in (temporary, *external)),
                sha256=sha256(temporary),
                source_sha256=metadata.source_sha256,
                tools=metadata.tools,
                inputs=inputs,
                outputs=outputs,
                fidelity=verdict.fidelity,
                findings=verdict.findings,
                verified_on=metadata.verified_on,
                samples=samples_of(data.compared) if gate else 0,
                preprocessing=metadata.preprocessing,
                calibration=metadata.calibration,
                labels=len(labels),
                failures=verdict.failures,
                layers=written.layers,
                notes=(
                    *notes,
                    *data.notes,
                    *made.notes,
                    *source.notes,
                    *said,
                    *_remarks(verdict, data.random, gate, quantize),
                ),
            )
            if verdict.failures:
                if format == "tflite" and isinstance(source, KerasSource):
                    _refuse_integers(source)
                    refuse_joined_samples(source)
                _stamp(temporary, msgspec.structs.replace(metadata, rejected=True))
                error = refused(
                    verdict,
                    path.name,
                    quantize,
                    metadata.verified_on,
                    in_float=options.improvement.keep_float != 0,
                )
                error.add_hint(rejected.keep(temporary, path, artifact))
                raise error
            if beside is not None:
                artifact = beside(artifact, temporary)
            for file in external:
                file.replace(path.with_name(file.name))
            advance()
    return artifact


def _check_calibrated(path: Path, quantize: Quantization, calibration: Samples | None) -> None:
    """Refuse int8 activations without data for their ranges.

    Raises:
        InputError: With the options that give some.
    """
    if SCHEMES[quantize].static and calibration is None:
        raise InputError(
            f"{quantize} quantization needs calibration data: typical inputs, preprocessed as for "
            "the model, to choose the ranges of its activations.",
            f"Try: dsconvert export MODEL -o {path} --quantize {quantize} --calibration DATA.npz "
            "(or --allow-random, for a file that is only to be tried out)",
            code="needs-calibration",
        )


def _check_runnable(temporary: Path, path: Path) -> None:
    """Refuse to compare what no runtime here can run.

    Raises:
        InputError: With the operations.
    """
    unrunnable = writing.flex_operations(temporary)
    if unrunnable:
        raise InputError(
            f"{path.name} keeps TensorFlow's own operations {', '.join(unrunnable)}, "
            "which no runtime here has, so that it cannot be verified.",
            "Replace the layers, or write the file unverified with --no-verify.",
            code="needs-flex",
        )


def _compared(
    file: Path,
    source: Source,
    references: Sequence[Array],
    data: ExportData,
    quantize: Quantization,
) -> tuple[Verdict, tuple[str, ...]]:
    """Judge the file; on random numbers of another range where these amplify rounding.

    Returns:
        The verdict, and on what else it was reached.
    """
    real = data.verified_on != "random inputs"
    verdict = judge(file, source.output_names, references, data.compared, quantize, real=real)
    if data.verified_on == "random inputs" and may_be_rounding(verdict.findings, quantize):
        passed = on_another_range(source, file, data.compared, quantize)
        if passed is not None:
            other, told = passed
            return other, (f"{told}; on numbers around 0: {verdict.failures[0]}",)
    return verdict, ()


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


def _refuse_integers(source: KerasSource) -> None:
    """Refuse what TensorFlow's converter gets wrong: integers of `keras.Model.quantize`.

    Raises:
        InputError: If the model computes with them.
    """
    told, hint = told_integers(source.model, "tflite")
    if told:
        raise InputError(f"TFLite cannot hold this model: {told}", hint, code="not-convertible")


def _remarks(verdict: Verdict, random: bool, gate: bool, quantize: Quantization) -> list[str]:
    """Return what should keep a reader from trusting the file too much."""
    found = [*remarks(verdict.fidelity), *warnings(verdict.findings)]
    if random:
        found.append(
            "calibrated on random numbers: for trying out only, its ranges are not those of images"
        )
    if not gate:
        text = "not verified: its outputs were never compared with the model's"
        if quantize.startswith("int"):
            text += ", and no better ranges, scales and biases were tried"
        found.append(text)
    return found
