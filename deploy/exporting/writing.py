"""Writing a file in its format and quantization; nothing here is verified."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dsconvert.base.errors import GateFailed, InputError
from dsconvert.base.predictor import Array
from dsconvert.formats.onnx.checking import Refused, check_runs
from dsconvert.formats.onnx.form import mend_form
from dsconvert.formats.onnx.functions import inlined
from dsconvert.formats.onnx.messages import assign
from dsconvert.formats.onnx.open import load
from dsconvert.formats.onnx.save import data_path, save, without_unused_domains
from dsconvert.formats.quantization import CalibrationMethod, Format

from ..schemes import SCHEMES
from . import onnx_export, onnx_half, onnx_reduce, tflite
from .export_options import Options
from .held_out import HeldOut
from .improve import Improved, improve
from .keras_source import KerasSource
from .onnx_candidates import OnnxBuilder
from .onnx_prepare import prepared
from .onnx_source import OnnxSource
from .onnx_static import quantize_static
from .speed import time_ratio
from .tflite_candidates import TfliteBuilder

if TYPE_CHECKING:
    from onnx import ModelProto

_CHEAP = 16 << 20
"""Bytes of a file up to which it is worth making it once more to compare times or ranges."""


_LARGE = 1 << 30
"""Bytes of an .onnx file up to which several int8 files of it are made and compared."""


def convert(
    source: KerasSource | OnnxSource,
    path: Path,
    format: Format,
    options: Options,
    calibration: Sequence[Array] | None,
    samples: Sequence[Array],
    held_out: HeldOut | None = None,
) -> Improved:
    """Write the file.

    Args:
        source: The model.
        path: Where to write.
        format: The format.
        options: How.
        calibration: One array per input, (n, ...), for static quantization.
        samples: One array per input, (n, ...), on which what prepares a file is checked.
        held_out: Further samples, by which the options' improvement is chosen; None for no
            improvement.

    Raises:
        InputError: If the format cannot hold the model so.
        GateFailed: If the file is not valid.
    """
    if format == "tflite":
        assert isinstance(source, KerasSource)
        return _tflite(source, path, options, calibration, held_out)
    if options.quantize == "none" and isinstance(source, KerasSource):
        onnx_export.convert(source, path)
        return Improved(())
    with tempfile.TemporaryDirectory(dir=path.parent) as name:
        folder = Path(name)
        return _quantized(
            _float32(source, folder), path, folder, options, calibration, samples, held_out
        )


def _tflite(
    source: KerasSource,
    path: Path,
    options: Options,
    calibration: Sequence[Array] | None,
    held_out: HeldOut | None,
) -> Improved:
    """Write a Keras model as a .tflite file."""
    quantize, flex = options.quantize, options.allow_flex
    if calibration is None:
        return Improved(tflite.convert(source, path, quantize, None, allow_flex=flex))
    cheap = 4 * source.model.count_params() <= _CHEAP
    method, other = _methods(options, cheap and not flex and quantize != "int16x8")
    builder = TfliteBuilder(source, tuple(calibration), quantize, flex, method=method, other=other)
    if held_out is None:
        return Improved(builder.write(path), method=method)
    with tempfile.TemporaryDirectory(dir=path.parent) as kept:
        builder = replace(builder, kept=Path(kept))
        return improve(builder, path, held_out, options.improvement)


def flex_operations(path: Path) -> tuple[str, ...]:
    """TensorFlow's own operations in a file, which no runtime here has."""
    return tflite.flex_ops(path) if path.suffix.lower() == ".tflite" else ()


def speed_notes(
    source: KerasSource | OnnxSource,
    path: Path,
    format: Format,
    options: Options,
    inputs: Sequence[Array],
) -> tuple[str, ...]:
    """Measure what a quantization that is often slower does to this file's time and size.

    Args:
        source: The model.
        path: The file, which runs.
        format: Its format.
        options: How it was made.
        inputs: One array per input, (n, ...).
    """
    scheme = SCHEMES[options.quantize]
    if format not in scheme.timed:
        return ()
    if format == "tflite" and path.stat().st_size > _CHEAP:
        return (f"{scheme.slow}; measure it with `dsconvert profile`",)
    with tempfile.TemporaryDirectory(dir=path.parent) as name:
        if format == "onnx":
            baseline = _float32(source, Path(name)).path
        else:
            assert isinstance(source, KerasSource)
            baseline = Path(name) / "float32.tflite"
            tflite.convert(source, baseline, "none", None)
        ratio = time_ratio(path, baseline, inputs)
        larger = _total(path) >= _total(baseline)
    notes = []
    if scheme.slow:
        told = "" if ratio is None else f": this file takes {ratio:.2g} times as long as float32"
        notes.append(f"{scheme.slow}{told}{' here, on one thread' if told else ''}")
    elif ratio is not None and ratio > 1.2:
        notes.append(f"takes {ratio:.2g} times as long as float32 here, on one thread")
    if larger:
        notes.append("is no smaller than float32: what quantization adds is more than it saves")
    return tuple(notes)


def _total(path: Path) -> int:
    """Bytes of a file, external data included."""
    beside = data_path(path)
    return path.stat().st_size + (beside.stat().st_size if beside.exists() else 0)


def _float32(source: KerasSource | OnnxSource, folder: Path) -> OnnxSource:
    """Return the model as a float32 .onnx file."""
    if isinstance(source, OnnxSource):
        return source
    from dsconvert.models.evaluation.keras_predictor import layers_of_integers

    from .layer_paths import told_layers
    from .onnx_source import read_onnx

    integers = layers_of_integers(source.model)
    if integers:
        raise InputError(
            f"the model computes with integers{told_layers(integers)}, after keras.Model.quantize: "
            "it was quantized already, and would lose accuracy twice.",
            "Give the float model that it was made from, or --quantize none.",
            code="quantized-already",
        )
    path = folder / "float32.onnx"
    onnx_export.convert(source, path)
    return read_onnx(path)


def _quantized(
    source: OnnxSource,
    path: Path,
    folder: Path,
    options: Options,
    calibration: Sequence[Array] | None,
    samples: Sequence[Array],
    held_out: HeldOut | None,
) -> Improved:
    """Write another .onnx file of a float32 one, valid and with the same properties."""
    raw = folder / "quantized.onnx"
    original = load(source.path)
    notes: tuple[str, ...] = ()
    layers, worst_db = None, None
    method, other = _methods(options, _total(source.path) <= _CHEAP)
    if options.quantize == "none":
        proto = load(source.path, weights=True)
    elif options.quantize == "float16":
        proto = onnx_half.to_float16(
            inlined(load(source.path, weights=True)),
            keep_io=options.keep_io,
            path=source.path,
            samples=samples,
        )
        notes = ("float16 is stored; a CPU computes in float32 where it has no float16 kernels",)
    else:
        ready, notes = prepared(source, folder, samples)
        if options.quantize == "dynamic":
            onnx_reduce.quantize_dynamic(ready, raw, external=source.external)
        else:
            assert calibration is not None
            size = _total(source.path)
            large = size > _LARGE
            if large and (options.improvement.keep_float or options.improvement.report):
                raise InputError(
                    "the model is too large for its layers to be looked at.",
                    "Leave --keep-float and --report out.",
                    code="too-large",
                )
            if held_out is None or large:
                quantize_static(ready, raw, calibration, method=method, external=source.external)
            else:
                maker = OnnxBuilder.of(ready, calibration, folder, method, other)
                improved = improve(maker, raw, held_out, options.improvement)
                notes, layers = (*notes, *improved.notes), improved.layers
                method, worst_db = improved.method, improved.worst_db
            if not _quantizes(load(raw)):
                raise InputError(
                    "ONNX Runtime found nothing in the model to quantize.",
                    "Keep the float32 file, or try --quantize float16.",
                    code="nothing-to-quantize",
                )
        proto = load(raw, weights=True)
    without_unused_domains(proto, original)
    _carry_over(proto, original)
    mend_form(proto, None)  # the quantizer sorts without a look into sub-graphs
    try:
        check_runs(proto, None)
    except Refused as error:
        raise GateFailed(
            f"{path.name} was not kept, it is not valid: {error}",
            "Try another quantization, and please report the model.",
            code="file-not-valid",
        ) from error
    save(proto, None, path, overwrite=True, external=source.external, check=False)
    return Improved(notes, layers, method, worst_db)


def _methods(options: Options, cheap: bool) -> tuple[CalibrationMethod, CalibrationMethod | None]:
    """Return how activations get their ranges, and how else where both are to be tried."""
    if options.method != "auto":
        return options.method, None
    return "minmax", "mse" if cheap else None


def _carry_over(model: ModelProto, original: ModelProto) -> None:
    """Let a model say of its origin what the original says: tools put their own names there."""
    assign(model.metadata_props, original.metadata_props)
    for field in ("producer_name", "producer_version", "domain", "model_version", "doc_string"):
        setattr(model, field, getattr(original, field))


def _quantizes(proto: ModelProto) -> bool:
    """Tell whether a graph holds any quantized operator."""
    return any(node.op_type == "DequantizeLinear" for node in proto.graph.node)
