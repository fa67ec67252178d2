"""Two models on the same samples, each fed in its own layout, outputs in one layout."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

import numpy as np

from dsconvert.base.errors import InputError
from dsconvert.base.fidelity import OutputFidelity, compare_outputs
from dsconvert.base.finite import check_answers, check_finite
from dsconvert.base.image_layout import Layout, arrange, choose
from dsconvert.base.in_batches import filled
from dsconvert.base.label_agreement import OutputKind
from dsconvert.base.predictor import Array, Predictor, Shape
from dsconvert.base.progress import Progress, silent
from dsconvert.base.whole_numbers import check_held

from ..data.checks import check_against, check_same_inputs
from ..data.datasets import Data

_CHUNK = 256
"""Samples per report of progress."""


def compare(
    subject: Predictor,
    reference: Predictor,
    data: Data,
    *,
    name: str = "",
    progress: Progress = silent,
) -> tuple[OutputFidelity, ...]:
    """Tell how close each output of a model is to the reference's on the same samples.

    Args:
        subject: The model.
        reference: The model that it should answer as; of any runtime and either layout.
        data: The samples; each model gets them with the channel axis of images where it takes it.
        name: What to call the subject.
        progress: Told of each chunk of samples.

    Raises:
        InputError: If the two take different inputs or have different outputs, the data do not fit,
            or the reference's own outputs are not finite.
    """
    shapes = {"the reference": reference.input_shapes, name or "the model": subject.input_shapes}
    check_same_inputs(shapes)
    data = data.laid_out(subject.input_shapes)
    check_against(subject.input_shapes, data)
    outputs = predict_all(subject, data.inputs, progress, f"Running {name}".rstrip())
    kinds = getattr(subject, "output_kinds", ())
    references = predict_reference(reference, data, progress)
    return compare_with(reference, references, data, outputs, kinds)


def predict_reference(
    reference: Predictor, data: Data, progress: Progress = silent
) -> tuple[Array, ...]:
    """Run the reference on samples as another model takes them.

    Raises:
        InputError: If they do not fit.
    """
    given = data.laid_out(reference.input_shapes)
    check_against(reference.input_shapes, given)
    return predict_all(reference, given.inputs, progress, "Running the reference")


def compare_with(
    reference: Predictor,
    references: Sequence[Array],
    data: Data,
    outputs: Sequence[Array],
    kinds: Sequence[OutputKind] = (),
) -> tuple[OutputFidelity, ...]:
    """Tell how close the outputs of a model are to those of the reference.

    Args:
        reference: The reference.
        references: What it gave.
        data: The samples as the model took them.
        outputs: What that one gave.
        kinds: Of the outputs, where the reference cannot tell.

    Raises:
        InputError: If the models have different outputs (code "shape-mismatch"), or the reference's
            are not finite.
    """
    turn = _turn(data, reference.input_shapes)
    compared = list(outputs)
    if len(outputs) == len(references):
        compared = [_like(*pair, turn) for pair in zip(outputs, references, strict=True)]
    kinds = getattr(reference, "output_kinds", ()) or kinds
    _check_outputs(references, compared, kinds)
    check_answers(
        reference.output_names,
        references,
        who="the reference",
        on=f"samples of {data.source}",
        hint="Give a reference that works, or data like those that it was trained with.",
    )
    fed = data.laid_out(reference.input_shapes).inputs if not data.on_disk else ()
    return compare_outputs(reference.output_names, references, compared, kinds, fed)


def predict_all(
    predictor: Predictor, inputs: Sequence[Array], progress: Progress, label: str
) -> tuple[Array, ...]:
    """Run on all samples, telling the progress; once where the inputs have no common batch.

    Raises:
        InputError: If the model has no inputs, does not run, or a sample holds NaN or infinity.
    """
    if not inputs:
        raise InputError(
            "a model without inputs gives the same outputs each time: samples say nothing of it.",
            "Name a file whose graph has its inputs.",
            code="no-inputs",
        )
    if len({array.shape[:1] for array in inputs}) > 1 or () in {a.shape for a in inputs}:
        with progress(label, 1) as advance:
            outputs = predictor.predict(inputs)
            advance()
        return outputs
    types = getattr(predictor, "input_types", ())
    for array, kind in zip(inputs, types, strict=False):
        if isinstance(array, np.ndarray):  # what is on disk is looked at part by part
            check_held(array, kind, "the data")
    starts = range(0, len(inputs[0]), _CHUNK)
    chunks = []
    with progress(label, len(starts)) as advance:
        for start in starts:
            chunk = [array[start : start + _CHUNK] for array in inputs]
            for array in chunk:
                check_finite(array, "the data", first=start)
            chunks.append(predictor.predict(chunk))
            advance()
    labels = [kind.labels for kind in getattr(predictor, "output_kinds", ())] or [False] * len(
        chunks[0]
    )
    return tuple(
        np.concatenate(filled(parts, -1 if label else 0))
        for parts, label in zip(zip(*chunks, strict=True), labels, strict=True)
    )


def _turn(data: Data, input_shapes: Sequence[Shape]) -> Layout:
    """Tell how images as one model takes them become images as another takes them."""
    moves = (
        choose(array.shape, shape, channels_first=False)
        for array, shape in zip(data.inputs, input_shapes, strict=True)
    )
    return next((move for move in moves if move != "as stored"), "as stored")


def _like(output: Array, reference: Array, turn: Layout) -> Array:
    """Return an image output (n, ...) with its channel axis where the reference's is.

    Where it fits either way, height, width and channels being the same, it goes as the inputs do.
    """
    layout = choose(output.shape, reference.shape, channels_first=False)
    cube = output.ndim == 4 and len({*output.shape[1:]}) == 1
    return arrange(output, turn if cube and layout == "as stored" else layout)


def _check_outputs(
    references: Sequence[Array], outputs: Sequence[Array], kinds: Sequence[OutputKind]
) -> None:
    rows = [kind.rows for kind in kinds] or [None] * len(references)
    shapes = [
        [_shape_told(*pair) for pair in zip_longest(arrays, rows[: len(arrays)])]
        for arrays in (references, outputs)
    ]
    if shapes[0] != shapes[1]:
        raise InputError(
            f"the reference's outputs have the shapes {shapes[0]}, the model's {shapes[1]}.",
            "Give as reference the model that this one was made from.",
            code="shape-mismatch",
        )


def _shape_told(array: Array, rows: int | None) -> tuple[str | int, ...]:
    """Return the shape of an output, what depends on the values by words."""
    return ("n", *("rows" if i == rows else size for i, size in enumerate(array.shape) if i > 0))
