"""A model whose outputs that mix scales are split into those that its last operators read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dsconvert.base.errors import InputError, require
from dsconvert.base.predictor import Array
from dsconvert.base.quiet import captured
from dsconvert.formats.onnx.open import load
from dsconvert.formats.onnx.save import save

from . import keras_tail, onnx_tail
from .keras_source import KerasSource
from .onnx_source import OnnxSource, read_onnx
from .source import Source


def split_outputs(source: Source, samples: Sequence[Array], folder: Path) -> tuple[Source, str]:
    """Make the model that gives what its mixed outputs are joined from.

    Args:
        source: The model.
        samples: One array per input, (n, ...), that tell which tensors mix scales.
        folder: Where to write an .onnx file.

    Returns:
        The model, and what became of its outputs, in words: their names, and how the old ones are
        computed from them.

    Raises:
        InputError: If no output mixes scales, or none can be split.
    """
    result = (
        _split_keras(source, samples)
        if isinstance(source, KerasSource)
        else _split_onnx(source, samples, folder)
    )
    if result is None:
        raise InputError(
            "no output can be split: none mixes scales on these images, or a model within the "
            "model makes it.",
            "Leave --outputs at auto.",
            code="no-mixed-scales",
        )
    found, rebuilding = result
    gone = [name for name in source.output_names if name not in found.output_names]
    new = [name for name in found.output_names if name not in source.output_names]
    told = f"outputs split: {', '.join(new)} instead of {', '.join(gone)}"
    return found, "; ".join([told, *rebuilding])


def _split_keras(
    source: KerasSource, samples: Sequence[Array]
) -> tuple[KerasSource, tuple[str, ...]] | None:
    """Return the split model, and how its outputs are put together again."""
    reference = _split_flat(source.reference, samples, source.output_names)
    if reference is None:
        return None
    made, names, rebuilding = reference
    model = made
    if source.model is not source.reference:
        exported = _split_flat(source.model, samples, source.output_names)
        if exported is None or len(exported[1]) != len(names):
            return None
        model = _renamed(exported[0], exported[1], names)
    return replace(source, model=model, reference=made, output_names=names), rebuilding


def _split_flat(
    flat: Any, samples: Sequence[Array], names: Sequence[str]
) -> tuple[Any, tuple[str, ...], tuple[str, ...]] | None:
    """Split a model of named outputs, whose layers are those of one model within it."""
    keras = require("keras", "keras", "to export Keras models")
    with captured():
        makers = {id(flat.output[name]._keras_history[0]) for name in names}
        inner = flat.output[names[0]]._keras_history[0]
        if len(makers) > 1 or not isinstance(inner, keras.Model):
            inner = keras.Model(list(flat.inputs), [flat.output[name] for name in names])
        model, unlike, tail = keras_tail.without_tail(inner, samples, names)
        if not tail.mixed:
            return None
        outputs = keras.tree.flatten(model(list(flat.inputs)))
        made = keras.Model(list(flat.inputs), dict(zip(unlike, outputs, strict=True)))
        made(list(flat.inputs))  # Keras exports no model that was never called
    return made, unlike, tail.rebuilding


def _renamed(model: Any, old: Sequence[str], new: Sequence[str]) -> Any:
    """Return the same model with other names for its outputs."""
    if tuple(old) == tuple(new):
        return model
    keras = require("keras", "keras", "to export Keras models")
    outputs = {name: model.output[was] for was, name in zip(old, new, strict=True)}
    made = keras.Model(list(model.inputs), outputs)
    made(list(model.inputs))
    return made


def _split_onnx(
    source: OnnxSource, samples: Sequence[Array], folder: Path
) -> tuple[OnnxSource, tuple[str, ...]] | None:
    """Return the split model, and how its outputs are put together again."""
    if source.external:
        return None
    tail = onnx_tail.tail_of(source.path, samples)
    if not tail.mixed or not tail.cuts:
        return None
    path = folder / "split.onnx"
    whole = load(source.path, weights=True)
    save(onnx_tail.without_tail(whole, tail), None, path, overwrite=True)
    return read_onnx(path), onnx_tail.rebuilding(whole, tail)
