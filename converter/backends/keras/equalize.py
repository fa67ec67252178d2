"""Pairs of a Keras model with their inner channels at the same range."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dsconvert.base.predictor import Array, at_once

from ...core.fitting.equalization import Ranges, move, note
from ...core.stages import Weights
from ...core.types import as_float
from .apply import rebuild
from .graph import FlatGraph, as_functional, flatten, keras_module
from .read import is_depthwise, is_pointwise

_CHUNK = 32


@dataclass(frozen=True)
class KerasPair:
    """Two layers with nothing in between.

    Attributes:
        first: The one that makes the inner channels.
        second: The one that reads them, alone.
        value: The number of the value between them.
    """

    first: Any
    second: Any
    value: int


def find_pairs(graph: FlatGraph) -> list[KerasPair]:
    """Return a depthwise convolution followed only by a 1×1 one, or the reverse, each called once.

    The first has no activation.
    """
    found = []
    for step in graph.steps:
        if not _is_open(step.operation) or len(graph.calls(step.operation)) != 1:
            continue
        value = step.writes[0]
        readers = [x for x in graph.steps if value in x.reads.values()]
        if len(readers) != 1 or value in graph.outputs:
            continue
        second = readers[0].operation
        fits = is_pointwise(second) if is_depthwise(step.operation) else is_depthwise(second)
        if fits and len(graph.calls(second)) == 1:
            found.append(KerasPair(step.operation, second, value))
    return found


def _is_open(operation: Any) -> bool:
    """Tell whether it is a pointwise or depthwise convolution without an activation."""
    if not (is_depthwise(operation) or is_pointwise(operation)):
        return False
    return operation.activation is keras_module().activations.linear


def equalized(model: Any, images: Sequence[Array]) -> tuple[Any, tuple[str, ...]]:
    """Return a model of the same outputs whose pairs have equal ranges inside.

    Args:
        model: A `keras.Model`; it is not changed.
        images: One array per input, (n, ...): the ranges are those on all of them.

    Returns:
        The new model, or the one given where it has no such pairs, and a note.

    Raises:
        InputError: If the model has no graph of layers.
    """
    drawn = as_functional(model)
    graph = flatten(drawn)
    pairs = find_pairs(graph)
    if not pairs:
        return model, ()
    ranges = _measured(graph, pairs, images)
    kernels: dict[int, Array] = {}  # by layer: one may stand in two pairs
    biases: dict[int, Array] = {}
    for pair in pairs:
        first, second = (
            kernels.get(id(layer), np.asarray(layer.kernel)) for layer in (pair.first, pair.second)
        )
        # Depthwise: (kh, kw, C, m), whose outputs lie in its last two axes; 1×1: (1, 1, C, N).
        axes = (2, 2) if is_depthwise(pair.first) else (3, 2)
        scales = ranges[pair.value].scales()
        moved = move(first, second, scales, axes)
        if pair.first.use_bias:
            biases[id(pair.first)] = np.asarray(pair.first.bias) * scales
        kernels |= dict(zip(map(id, (pair.first, pair.second)), moved, strict=True))
    layers = {id(layer): layer for pair in pairs for layer in (pair.first, pair.second)}
    weights = {
        graph.name_of(layers[key]): Weights(as_float(kernel), biases.get(key))
        for key, kernel in kernels.items()
    }
    rebuilt, notes = rebuild(drawn, {}, weights, {})
    return rebuilt, (note([ranges[pair.value] for pair in pairs]), *notes)


def _measured(
    graph: FlatGraph, pairs: Sequence[KerasPair], images: Sequence[Array]
) -> dict[int, Ranges]:
    """Return the range of each channel between the layers of each pair, by value number."""
    axes = {pair.value: 1 if pair.first.data_format == "channels_first" else -1 for pair in pairs}
    found = {value: Ranges.none(graph.symbolic[value].shape[axis]) for value, axis in axes.items()}
    last = {number: i for i, step in enumerate(graph.steps) for number in step.reads.values()}
    size = at_once(images, _CHUNK)
    for start in range(0, len(images[0]), size):
        values: dict[int, Any] = {
            number: np.asarray(array[start : start + size], graph.symbolic[number].dtype)
            for number, array in zip(graph.inputs, images, strict=True)
        }
        for i, step in enumerate(graph.steps):
            step.run(values)
            for number in step.writes:
                if number in found:
                    found[number].add(np.asarray(values[number]), axes[number])
            for number in {*step.reads.values(), *step.writes}:
                if last.get(number, i) <= i:
                    values.pop(number, None)
    return found
