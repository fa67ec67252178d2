"""Comparing the imported model with the original in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from dsconvert.converter.core.errors import GateFailed, InputError
from dsconvert.converter.core.predictor import Array

from .drawing import Drawn
from .graph import Graph
from .probe import Facts, first_sentence, random_feed, session

TOLERANCE = 1e-4
TOLERANCE_FLOAT16 = 1e-2
_RANGES = ((1.0, 0.0), (0.25, 0.5), (64.0, 128.0))
"""Scale and shift of the random floats: normalised, 0 … 1 and 0 … 255 images."""


def compare(
    graph: Graph, facts: Facts, drawn: Drawn, given: Sequence[Array] | None, seed: int
) -> None:
    """Run both models on random inputs, and on real ones if there are any.

    Raises:
        GateFailed: If an output differs.
        InputError: If the real inputs are not those of the model.
    """
    run = session(graph.proto)
    random = np.random.default_rng(seed)
    half = any(array.dtype.itemsize == 2 for array in graph.constants.values() if array.size > 1)
    tolerance = TOLERANCE_FLOAT16 if half else TOLERANCE
    feeds = []
    for probe in range(len(next(iter(facts.inputs.values()), ()))):
        shapes = [facts.inputs[info.name][probe] for info in graph.inputs]
        for scale, shift in _RANGES:
            feed = random_feed(graph.inputs, shapes, random)
            feeds.append(
                {
                    name: x if x.dtype.kind in "biu" else (x * scale + shift).astype(x.dtype)
                    for name, x in feed.items()
                }
            )
    if given is not None:
        feeds.append(check_given(graph, given))
    for feed in feeds:
        _compare_one(graph, run, drawn, feed, tolerance)


def check_given(graph: Graph, given: Sequence[Array]) -> dict[str, Array]:
    """Real inputs by name, in the model's types.

    Raises:
        InputError: If their number or ranks are not those of the model's inputs.
    """
    shapes = [array.shape for array in given]
    if len(given) != len(graph.inputs) or any(
        len(shape) != len(info.shape) for shape, info in zip(shapes, graph.inputs, strict=True)
    ):
        wanted = ", ".join(f"{info.name} {info.shape}" for info in graph.inputs)
        raise InputError(
            f"the real inputs have shapes {shapes}; the model takes {wanted}.",
            "Give one array per input, as the ONNX model takes it.",
        )
    return {
        info.name: np.asarray(array, info.dtype)
        for info, array in zip(graph.inputs, given, strict=True)
    }


def run_keras(model: Any, axes: Sequence[Sequence[int]], arrays: Sequence[Array]) -> list[Array]:
    """The model's outputs for inputs in ONNX axes."""
    import keras

    stored = [
        np.transpose(array, order).astype(tensor.dtype)
        for array, order, tensor in zip(arrays, axes, model.inputs, strict=True)
    ]
    return [np.asarray(x) for x in keras.tree.flatten(model(stored, training=False))]


def _compare_one(
    graph: Graph, run: Any, drawn: Drawn, feed: dict[str, Array], tolerance: float
) -> None:
    try:
        wanted = run.run(list(graph.outputs), feed)
    except Exception as error:  # ONNX Runtime's errors share no base class
        raise InputError(
            f"the model does not run in ONNX Runtime: {first_sentence(error)}",
            "Give inputs that it runs on.",
        ) from error
    arrays = [feed[info.name] for info in graph.inputs]
    got = run_keras(drawn.model, drawn.input_axes, arrays)
    for name, ours, reference, order in zip(
        graph.outputs, got, wanted, drawn.output_axes, strict=True
    ):
        theirs = np.transpose(reference, order)
        if ours.shape != theirs.shape:
            raise GateFailed(
                f"the output {name!r} has shape {ours.shape} in Keras and {theirs.shape} in ONNX "
                "Runtime, axes in Keras' order.",
                _REPORT,
            )
        apart = relative_error(ours, theirs)
        if not apart <= tolerance:
            raise GateFailed(
                f"the output {name!r} differs between Keras and ONNX Runtime: relative error "
                f"{apart:.2e}, allowed is {tolerance:g}.",
                _REPORT,
            )


_REPORT = "The import of this model is wrong; the file is not to be used."


def relative_error(ours: Array, theirs: Array) -> float:
    """The largest difference in units of the largest value; infinities and NaNs have to agree."""
    a, b = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    finite = np.isfinite(b)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return float("inf")
    if not finite.any():
        return 0.0
    a, b = a[finite], b[finite]
    return float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-6))
