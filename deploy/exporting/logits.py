"""What the softmax that ends a classifier is given.

The noise of probabilities is that of the few samples whose classes are close to each other: over
200 samples it says little about two files. Of logits all samples count alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from dsconvert.base.predictor import Array
from dsconvert.formats.layer_names import MOVERS
from dsconvert.formats.onnx.graph import OnnxGraph
from dsconvert.formats.onnx.open import load

from ..runtimes.samples import portions
from .onnx_activations import watched_values
from .tflite_activations import TfliteValues

T = TypeVar("T", int, str)
_AT_ONCE = 64
"""Samples of a batch whose size is free."""


def logits_of(path: Path, inputs: Sequence[Array]) -> tuple[Array | None, ...]:
    """Return what each output's softmax is given, (n, classes), less its mean over the classes.

    None for an output that is no vector or has no softmax.

    Args:
        path: A .tflite or .onnx file.
        inputs: One real-valued array per input, (n, ...).

    Raises:
        InputError: If the file does not run.
    """
    read = _of_tflite if path.suffix.lower() == ".tflite" else _of_onnx
    return tuple(
        None if one is None or one.ndim != 2 else one - one.mean(axis=1, keepdims=True)
        for one in read(path, inputs)
    )


def _of_tflite(path: Path, inputs: Sequence[Array]) -> list[Array | None]:
    file = TfliteValues(path)
    makers = {made: (kind, reads) for kind, reads, makes in file.operators() for made in makes}
    given = [_given(output, makers) for output in file.output_tensors]
    wanted = [one for one in given if one is not None]
    if not wanted:
        return [None] * len(given)
    parts = portions(inputs, file.inputs[0].shape[0] or 1)
    rows = [file.values(part, wanted) for part in parts]
    found = dict(zip(wanted, map(np.concatenate, zip(*rows, strict=True)), strict=True))
    return [None if one is None else found[one] for one in given]


def _of_onnx(path: Path, inputs: Sequence[Array]) -> list[Array | None]:
    model = load(path, weights=True)
    made = OnnxGraph(model).makers
    makers = {name: (node.op_type, list(node.input)) for name, node in made.items()}
    given = [_given(output.name, makers) for output in model.graph.output]
    wanted = [one for one in given if one is not None]
    if not wanted:
        return [None] * len(given)
    batches = list(watched_values(model, wanted, path, inputs, _AT_ONCE))
    found = {name: np.concatenate([batch[name] for batch in batches]) for name in wanted}
    return [None if one is None else found[one] for one in given]


def _given(output: T, makers: Mapping[T, tuple[str, Sequence[T]]]) -> T | None:
    """Return what the softmax reads that makes an output; None where none does."""
    value = output
    while value in makers:
        kind, reads = makers[value]
        if kind == "Softmax":
            return reads[0]
        if kind not in MOVERS or not reads:
            return None
        value = reads[0]
    return None
