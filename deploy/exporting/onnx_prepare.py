"""An .onnx file prepared for quantization; each step is compared with the source in float32.

The tools of the steps are not trusted: onnx's converter of opsets, for one, drops the rule of
coordinates of a Resize of opset 10, with no error.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dsconvert.base.errors import InputError, require
from dsconvert.base.output_fidelity.group_error import group_noise
from dsconvert.base.predictor import Array
from dsconvert.base.quiet import captured
from dsconvert.formats.onnx.contrib import BLOCKED, FROM_BEFORE, spelled_out
from dsconvert.formats.onnx.form import mend_form
from dsconvert.formats.onnx.functions import inlined, trim_inputs
from dsconvert.formats.onnx.graph import OnnxGraph, all_names, attributes, fresh_name, is_op
from dsconvert.formats.onnx.open import embed_weights, load
from dsconvert.formats.onnx.save import save
from dsconvert.formats.onnx.tensors import array_of, free_weights
from dsconvert.formats.onnx.types import declare_inner_types

from ..runtimes.registry import open_runtime
from ..runtimes.samples import first_samples
from ..runtimes.session import first_line
from .onnx_outputs import part_captured, part_outputs
from .onnx_resize import widen_resizes
from .onnx_source import OnnxSource

if TYPE_CHECKING:
    from onnx import ModelProto

_PER_CHANNEL_OPSET = 13
"""From which on QuantizeLinear has an axis."""
_ASYMMETRIC_OPSET = 10
"""Up to which Resize and Upsample had one rule for coordinates, and no attribute that names it."""
_FLOAT32_DB = 60.0
"""SQNR that a step has to keep: float32 sums in another order give 100 dB and more, while another
rule of interpolation gives 15 to 25 dB."""
_WHOLE = 0.01
"""Share of an output of whole numbers that a step may change: classes of a tie."""
_SAMPLES = 8
_ROWS = ((), (1,))
"""Axes before the last of a bias that is the same for every row."""


def prepared(
    source: OnnxSource, folder: Path, samples: Sequence[Array]
) -> tuple[Path, tuple[str, ...]]:
    """The graph as quantization wants it: opset 13 or newer, normalisations folded, shapes known.

    A BatchNormalization that stays behind its convolution would be quantized by itself.

    Args:
        source: The float32 file.
        folder: Where to write intermediate files.
        samples: One array per input, (n, ...), on which each step is compared with the source.

    Returns:
        The file, which is a copy of the source where nothing could be done; and what its user
        should know.

    Raises:
        InputError: If its opset is too old and onnx cannot convert it, or converts it to a model
            of other outputs; or if its layout is that of one processor.
    """
    if any(node.domain == BLOCKED for node in load(source.path).graph.node):
        raise InputError(
            f"{source.path.name} has operators of {BLOCKED}: ONNX Runtime optimised it for one "
            "kind of processor, and quantizes none of them.",
            f"{FROM_BEFORE[0].upper()}{FROM_BEFORE[1:]}.",
            code="not-quantizable",
        )
    few = first_samples(samples, _SAMPLES)
    current, notes = _fitted(source, folder, few)
    quantization = require("onnxruntime.quantization", "onnx", "to quantize .onnx files")
    folded = folder / "folded.onnx"
    with captured():
        try:
            quantization.shape_inference.quant_pre_process(
                str(current),
                str(folded),
                skip_symbolic_shape=True,  # needs sympy
                save_as_external_data=source.external,
                all_tensors_to_one_file=True,
            )
            if not source.external:
                _as_the_quantizer_reads(folded)
            kept = not _changed(source, folded, few)
        except Exception:  # unfoldable graphs are quantized as they are
            kept = False
    return (folded if kept else _in_folder(current, source, folder)), notes


def _in_folder(current: Path, source: OnnxSource, folder: Path) -> Path:
    """Return the file, or a copy of the source: the quantizer writes a file beside what it reads.

    That is NAME-inferred.onnx, which it removes again, whoever wrote it.
    """
    if current != source.path:
        return current
    copied = folder / "as-it-is.onnx"
    beside = current.parent
    save(load(current), beside, copied, overwrite=True, external=source.external, check=False)
    return copied


def _fitted(
    source: OnnxSource, folder: Path, samples: Sequence[Array]
) -> tuple[Path, tuple[str, ...]]:
    """Return the file with an opset, a file format and operators that quantization takes."""
    stored, beside = load(source.path), source.path.parent
    model = spelled_out(inlined(stored))
    opset, name = OnnxGraph(model).opset, source.path.name
    old = opset < _PER_CHANNEL_OPSET
    fits = [
        model is not stored,
        mend_form(model, beside),
        free_weights(model),
        trim_inputs(model),
        widen_resizes(model, beside),
        declare_inner_types(model, beside),
    ]
    if not any([*fits, part_outputs(model), part_captured(model), old]):
        return source.path, ()
    hint = f"Export the original model again with opset {_PER_CHANNEL_OPSET} or newer."
    if old:
        embed_weights(model, beside)
        try:
            with captured():
                model = _converted(model, opset)
        except Exception as error:  # the converter raises RuntimeError and others
            raise InputError(
                f"{name} is of opset {opset}, quantization per channel needs "
                f"{_PER_CHANNEL_OPSET}, and onnx cannot convert it: {first_line(error)}",
                hint,
                code="opset-too-old",
            ) from error
    fitted = folder / "fitted.onnx"
    save(model, beside, fitted, overwrite=True, external=source.external, check=False)
    changed = _changed(source, fitted, samples)
    if changed:
        raise InputError(
            f"{name} is of opset {opset}, and what prepares it for quantization changes its "
            f"outputs: {changed}.",
            hint,
            code="opset-too-old",
        )
    if not old:
        return fitted, ()
    needs = f"to {_PER_CHANNEL_OPSET}: quantization per channel needs it"
    return fitted, (f"converted from opset {opset} {needs}",)


def _converted(model: ModelProto, opset: int) -> ModelProto:
    """Return the model in the opset of quantization per channel."""
    onnx = require("onnx", "onnx", "to quantize .onnx files")
    converted: ModelProto = onnx.version_converter.convert_version(model, _PER_CHANNEL_OPSET)
    if opset > _ASYMMETRIC_OPSET:
        return converted
    rules = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    for node in converted.graph.node:
        if is_op(node, "Resize"):
            given = {attribute.name for attribute in node.attribute}
            node.attribute.extend(
                onnx.helper.make_attribute(name, rule)
                for name, rule in rules.items()
                if name not in given
            )
    return converted


def _as_the_quantizer_reads(path: Path) -> None:
    """Change what ONNX Runtime's optimiser leaves, or makes anew, that its quantizer misreads."""
    model = load(path)
    _flatten_biases(model, path.parent)
    part_captured(model)
    declare_inner_types(model, path.parent)
    save(model, path.parent, path, overwrite=True, external=False, check=False)


def _flatten_biases(model: ModelProto, folder: Path) -> None:
    """Let biases of Gemm be (N,) where they are (), (1,) or (1, N): it reads numbers of channels.

    ONNX Runtime makes a Gemm of a MatMul and an Add.
    """
    from onnx import numpy_helper

    graph = OnnxGraph(model)
    taken = set(all_names(model.graph))
    for node in graph.nodes:
        bias = graph.initializers.get(node.input[2]) if len(node.input) > 2 else None
        weights = graph.initializers.get(node.input[1]) if is_op(node, "Gemm") else None
        if bias is None or weights is None:
            continue
        value = array_of(bias, folder)
        width = weights.dims[0 if attributes(node).get("transB", 0) else 1]
        if value.shape == (width,) or value.size not in (1, width) or value.shape[:-1] not in _ROWS:
            continue
        node.input[2] = fresh_name(f"{bias.name}_flat", taken)
        flat = np.ascontiguousarray(np.broadcast_to(value.reshape(-1), width))
        model.graph.initializer.append(numpy_helper.from_array(flat, node.input[2]))


def _changed(source: OnnxSource, path: Path, samples: Sequence[Array]) -> str:
    """Return what is wrong with a prepared file; empty where its outputs are the source's."""
    expected = source.predict(samples)
    got = open_runtime(path).predict(samples)
    for name, wanted, found in zip(source.output_names, expected, got, strict=True):
        if wanted.shape != found.shape:
            return f"{name} has shape {found.shape[1:]} instead of {wanted.shape[1:]}"
        if np.array_equal(wanted, found, equal_nan=True):
            continue
        if np.array_equal(wanted, np.rint(wanted)):
            share = float(np.mean(wanted != found))
            if share > _WHOLE:
                return f"{share:.0%} of {name} differ"
            continue
        level = -10 * np.log10(max(group_noise(wanted, found)))
        if not level >= _FLOAT32_DB:
            return f"{name} has an SQNR of {level:.1f} dB; at least {_FLOAT32_DB:.0f} dB required"
    return ""
