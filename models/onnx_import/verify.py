"""Comparing the imported model with the original in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from dsconvert.base.errors import GateFailed, InputError
from dsconvert.base.output_fidelity.channel_axis import channel_axis
from dsconvert.base.output_fidelity.channel_groups import channels_last, groups
from dsconvert.base.predictor import Array
from dsconvert.formats.onnx.half import HALF
from dsconvert.formats.onnx.session import sentence

from .batch import fixed_batch
from .drawing import ConvertedGraph
from .graph import Graph
from .probe import DATA_SIZED, ProbedValues, opened, random_feed

TOLERANCE = 1e-4
TOLERANCE_FLOAT16 = 1e-2
CLOSE = 1e-2
CLOSE_FLOAT16 = 5e-2
_ROUNDING = 10.0
"""How many times its own rounding noise a model may differ from the original."""
_MOST = 0.05
"""What no rounding noise allows, on the range that the model has to agree on."""
_FEW_STEPS = 4
"""Of sequences of the first range: rounding noise may grow from step to step."""
_LEAST = 1e-6
"""What is taken for the largest value where all are smaller."""
_SMALL = 1e-4
"""Share of the largest value below which a group of channels is measured by that: a sigmoid's
smallest values are no outputs of their own."""
_RANGES = ((1.0, 0.0), (0.25, 0.5), (64.0, 128.0))
"""Scale and shift of the random floats: normalised, 0 … 1 and 0 … 255 images."""


def compare(
    graph: Graph,
    facts: ProbedValues,
    drawn: ConvertedGraph,
    given: Sequence[Array] | None,
    seed: int,
) -> None:
    """Run both models on random inputs, and on real ones if there are any.

    Which range of values a model is made for does not stand in the file, and a network for images
    of 0 … 255 amplifies rounding errors where it is fed noise around 0. So it has to agree fully
    on one of the ranges (and on the real inputs), and closely on the others. Differences count in
    units of the largest value that the group of channels of like scale has in any run.

    A steep function, such as 1 / (1 + exp(−50 x)), amplifies rounding. Where the models differ by
    more than is usual, ten times as much is allowed as the original differs from itself: between
    two optimisation levels, and on inputs one unit in the last place apart.

    Raises:
        GateFailed: If an output differs.
        InputError: If the real inputs are not those of the model.
    """
    run = opened(graph.proto)
    random = np.random.default_rng(seed)
    half = any(t.data_type in HALF and prod(t.dims) > 1 for t in graph.tensors.values())
    allowed, close = (TOLERANCE_FLOAT16, CLOSE_FLOAT16) if half else (TOLERANCE, CLOSE)
    sets = [
        _random_feeds(graph, facts, random, scale, shift, every_size=number == 0)
        for number, (scale, shift) in enumerate(_RANGES)
    ]
    if given is not None:
        sets.append(_in_batches(check_given(graph, given), fixed_batch(graph, facts)))
    leaping = _leaping(graph)
    pairs = [[_run_both(graph, run, drawn, feed, leaping) for feed in feeds] for feeds in sets]
    for index, name in enumerate(graph.outputs):
        results = [[pair[index] for pair in runs] for runs in pairs]
        apart = _apart(results)
        strict = min(apart[: len(_RANGES)], default=0.0)
        worst = max(apart)
        if given is not None:
            strict = max(strict, apart[-1])
        if strict <= allowed and (worst <= close or name in leaping):
            continue
        own = _apart([[pair[index] for pair in _rounded(graph, run, feeds)] for feeds in sets])
        noise = own[-1] if given is not None else min(own)
        limits = (
            max(allowed, min(_ROUNDING * noise, _MOST)),
            max(close, _ROUNDING * max(own)),
        )
        if not (strict <= limits[0] and worst <= limits[1]):
            chaotic = min(own) > _MOST
            raise GateFailed(
                f"the output {name!r} differs between Keras and ONNX Runtime: relative error "
                f"{strict:.1e} (allowed {limits[0]:.1e}), on other ranges of random inputs "
                f"{worst:.1e} (allowed {limits[1]:.1e}). By rounding alone ONNX Runtime differs "
                f"from itself by {noise:.1e}.",
                _CHAOTIC if chaotic else _REPORT,
                code="outputs-differ",
            )


def _in_batches(feed: dict[str, Array], batch: int | None) -> list[dict[str, Array]]:
    """Share real inputs out to batches of the size that a model has; what fills none is left."""
    count = min(len(array) for array in feed.values())
    if batch is None or count < batch:
        return [feed]
    starts = range(0, count - batch + 1, batch)
    return [{name: x[start : start + batch] for name, x in feed.items()} for start in starts]


def _random_feeds(
    graph: Graph,
    facts: ProbedValues,
    random: np.random.Generator,
    scale: float,
    shift: float,
    *,
    every_size: bool,
) -> list[dict[str, Array]]:
    """Random inputs of one range, for the first set of sizes or one for each."""
    feeds = []
    count = len(next(iter(facts.inputs.values()), ()))
    for probe in range(count if every_size else min(count, 1)):
        shapes = [facts.inputs[info.name][probe] for info in graph.inputs]
        feed = random_feed(graph.inputs, shapes, random, scale, shift)
        for name, steps in _lengths(graph, facts, probe).items():
            steps = min(steps, _FEW_STEPS) if every_size else steps
            feed[name] = random.integers(1, steps + 1, feed[name].shape).astype(feed[name].dtype)
        feeds.append(feed)
    return feeds


def _lengths(graph: Graph, facts: ProbedValues, probe: int) -> dict[str, int]:
    """Return the inputs that are lengths of a recurrent layer's sequences, and how many steps."""
    given = {info.name for info in graph.inputs}
    return {
        node.inputs[4]: facts.shapes[node.inputs[0]][probe][1 if node.get("layout", 0) else 0]
        for node in graph.live
        if node.op in ("LSTM", "GRU", "RNN") and node.has(4) and node.inputs[4] in given
    }


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
            code="shape-mismatch",
        )
    return {
        info.name: np.asarray(array, info.dtype)
        for info, array in zip(graph.inputs, given, strict=True)
    }


def run_keras(model: Any, axes: Sequence[Sequence[int]], arrays: Sequence[Array]) -> list[Array]:
    """Return the model's outputs for inputs in ONNX axes."""
    import keras

    stored = [
        np.transpose(array, order).astype(tensor.dtype)
        for array, order, tensor in zip(arrays, axes, model.inputs, strict=True)
    ]
    packed = keras.tree.pack_sequence_as(model.input, stored)
    try:
        made = model(packed, training=False)
    except Exception as error:  # TensorFlow's errors share no base class with Keras'
        shapes = ", ".join(map(str, (array.shape for array in stored)))
        raise GateFailed(
            f"the model drawn in Keras does not run on inputs of {shapes}: {sentence(error)}",
            _REPORT,
            code="does-not-run",
        ) from error
    return [np.asarray(x) for x in keras.tree.flatten(made)]


def _leaping(graph: Graph) -> set[str]:
    """Return the outputs whose number of values is for the values to decide."""
    reached: set[str] = set()
    for node in graph.live:
        if node.op in DATA_SIZED or not reached.isdisjoint(node.inputs):
            reached.update(node.outputs)
    return reached & set(graph.outputs)


def _run_both(
    graph: Graph, run: Any, drawn: ConvertedGraph, feed: dict[str, Array], leaping: set[str]
) -> list[tuple[Array, Array]]:
    """Return the outputs of Keras and of ONNX Runtime, both with their axes as Keras has them.

    One of ``leaping`` that has another number of values than the original's counts as not a number.
    """
    try:
        wanted = run.run(list(graph.outputs), feed)
    except Exception as error:  # ONNX Runtime's errors share no base class
        raise InputError(
            f"the model does not run in ONNX Runtime: {sentence(error)}",
            "Give inputs that it runs on.",
            code="does-not-run",
        ) from error
    arrays = [feed[info.name] for info in graph.inputs]
    got = run_keras(drawn.model, drawn.input_axes, arrays)
    pairs = []
    for name, ours, theirs, order in zip(
        graph.outputs, got, wanted, drawn.output_axes, strict=True
    ):
        stored = np.transpose(theirs, order)
        if name in leaping and ours.shape != stored.shape and ours.ndim == stored.ndim:
            stored = stored if stored.size else np.zeros([max(n, 1) for n in stored.shape])
            ours = np.full(stored.shape, np.nan)
        if ours.shape != stored.shape:
            raise GateFailed(
                f"the output {name!r} has shape {ours.shape} in Keras and {stored.shape} in ONNX "
                "Runtime, axes in Keras' order.",
                _REPORT,
                code="outputs-differ",
            )
        pairs.append((ours, stored))
    return pairs


def _rounded(
    graph: Graph, run: Any, feeds: Sequence[dict[str, Array]]
) -> list[list[tuple[Array, Array]]]:
    """Return the original's outputs beside those that differ by rounding alone."""
    plain = opened(graph.proto, optimization="none")
    step = np.float32(1 + 2**-23)
    pairs = []
    for feed in feeds:
        base = run.run(list(graph.outputs), feed)
        near = {
            name: array * step if array.dtype == np.float32 else array
            for name, array in feed.items()
        }
        for other in (plain.run(list(graph.outputs), feed), run.run(list(graph.outputs), near)):
            same = [o.shape == b.shape for o, b in zip(other, base, strict=True)]
            pairs.append(
                [
                    (np.atleast_1d(o if alike else b), np.atleast_1d(b))
                    for o, b, alike in zip(other, base, same, strict=True)
                ]
            )
    return pairs


_CHAOTIC = "No two programs agree on it: give real inputs, dsconvert import MODEL --data DATA."
_REPORT = "The import of this model is wrong and is not to be used: please report it."


def _apart(results: Sequence[Sequence[tuple[Array, Array]]]) -> list[float]:
    """Return the largest difference in each set of runs, in units of the largest values.

    Args:
        results: One output's values in Keras and in ONNX Runtime, by set and run.
    """
    kept = [[pair for pair in runs if pair[1].size] for runs in results]
    if not any(kept):  # nothing to differ
        return [0.0 for _ in results]
    outputs = [theirs for runs in kept for _, theirs in runs]
    axis = channel_axis(outputs[0])
    parts = [[tuple(_rows(array, axis) for array in pair) for pair in runs] for runs in kept]
    if len({rows.shape[1] for runs in parts for _, rows in runs}) > 1:  # a free size lies there
        parts = [[tuple(rows.reshape(-1, 1) for rows in pair) for pair in runs] for runs in parts]
    sizes = np.max([_largest(theirs) for runs in parts for _, theirs in runs], axis=0)
    scales = np.full(len(sizes), max(float(sizes.max()), _LEAST))
    for group in groups(np.where(sizes >= _SMALL * scales, sizes, 0.0)):
        scales[group] = sizes[group].max()
    found = [
        [float(np.max(_differences(*pair) / scales, initial=0.0)) for pair in runs]
        for runs in parts
    ]
    most = max(max(apart) for apart in found if apart)
    return [max(apart, default=most) for apart in found]  # an empty set says nothing


def _rows(array: Array, axis: int) -> Array:
    """Return one row for each sample and position, (n, channels), in float64."""
    last = channels_last(array, axis)
    return np.asarray(last.reshape(-1, last.shape[-1]), np.float64)


def _differences(ours: Array, theirs: Array) -> Array:
    """Return the largest of each channel; infinite where infinities and NaNs do not agree."""
    finite = np.isfinite(theirs)
    alike = finite | (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
    apart = np.abs(np.subtract(ours, theirs, where=finite, out=np.zeros_like(theirs)))
    apart = np.where(np.isnan(apart) | ~alike, np.inf, apart)
    return np.asarray(apart.max(axis=0, initial=0.0))


def _largest(values: Array) -> Array:
    """Return the largest finite absolute value of each channel."""
    return np.asarray(np.abs(np.where(np.isfinite(values), values, 0.0)).max(axis=0, initial=0.0))
