"""Random inputs on which a model's outputs change.

Noise around 0 is as good as constant for a network that scales images of 0 … 255 itself. Its
outputs hardly change then: a sound file is refused for rounding, and a broken one may pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from dsconvert.base.errors import InputError
from dsconvert.base.predictor import Array

from ..runtimes.samples import are_samples

RANGES = (("0 … 255", 64.0, 128.0), ("0 … 1", 0.25, 0.5))
"""Ranges of images, with the scale and shift that make them of normal numbers."""
_HARDLY = 1 / 16
"""Standard deviation over the samples, as a share of an output's size, below which it hardly
changes: 16 of the 255 steps of an 8-bit output."""
_TELLS_MORE = 4
"""Times as much change from which on another range tells more, where each hardly changes them."""
_FEW = 4
"""Samples that tell it."""

_NUMBERS = 16
"""The largest of random whole numbers that stand one beside each sample."""

Predict = Callable[[Sequence[Array]], Sequence[Array]]


def in_range(inputs: Sequence[Array], scale: float, shift: float) -> tuple[Array, ...]:
    """Return normal numbers as images of another range; whole numbers stay."""
    return tuple(
        np.asarray(array * scale + shift, array.dtype) if array.dtype.kind == "f" else array
        for array in inputs
    )


def telling_inputs(predict: Predict, inputs: Sequence[Array]) -> tuple[tuple[Array, ...], str]:
    """Choose the range of random inputs on which the outputs change, if they hardly do around 0.

    Args:
        predict: The reference: one array per output, (n, ...), for one array per input.
        inputs: Numbers around 0, one array per input, (n, ...).

    Returns:
        The inputs, and in a sentence which range was chosen; empty where it is the given one.
    """
    if not are_samples(inputs):
        return tuple(inputs), ""
    inputs = _with_larger_numbers(predict, inputs)
    few = [array[:_FEW] for array in inputs]
    most, chosen, told = _change(predict(few)), tuple(inputs), ""
    if most >= _HARDLY:
        return chosen, told
    for name, scale, shift in RANGES:
        change = _change(predict(in_range(few, scale, shift)))
        if change > most and (change > _HARDLY or change > _TELLS_MORE * most):
            most, chosen = change, in_range(inputs, scale, shift)
            told = f"compared on random images of {name}: around 0 the outputs hardly change"
    return chosen, told


def _with_larger_numbers(predict: Predict, inputs: Sequence[Array]) -> Sequence[Array]:
    """Let whole numbers, one for each sample, be larger than 0 and 1 where the model takes them.

    They are lengths of sequences or indices: of sequences of one step nothing is compared.
    """
    random = np.random.default_rng(0)
    larger = [
        random.integers(0, _NUMBERS + 1, len(array)).astype(array.dtype)
        if array.ndim == 1 and array.dtype.kind in "iu"
        else array
        for array in inputs
    ]
    if all(one is other for one, other in zip(larger, inputs, strict=True)):
        return inputs
    try:
        predict([array[:_FEW] for array in larger])
    except InputError:
        return inputs
    return larger


def _change(outputs: Sequence[Array]) -> float:
    """Return the least change of an output from sample to sample, as a share of its size."""
    shares = [math.inf]
    for output in outputs:
        values = np.asarray(output)
        if values.dtype.kind == "f" and values.ndim and len(values) > 1 and values.size:
            values = values.astype(np.float64)
            power = float(np.mean(values**2))
            shares.append(math.sqrt(float(values.var(axis=0).mean()) / power) if power > 0 else 0.0)
    least = min(shares)
    return least if math.isfinite(least) or least == math.inf else 0.0
