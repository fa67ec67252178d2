"""Ranges that leave rare values out: the error of clipping them against finer steps for the rest.

The range of least squared error after rounding is searched on a histogram, as in Banner et al.,
"Post training 4-bit quantization of convolutional networks" (arXiv:1810.05723), but without their
assumption about the values' distribution.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from dsconvert.base.predictor import Array
from dsconvert.formats.layer_names import MOVERS

T = TypeVar("T", int, str)

SAMPLES = 512
"""Samples whose values are counted; the ends are those of all."""
_BINS = 2048
"""Of a histogram: eight for each step of the widest range, so that a bin's width says nothing."""
_STEPS = 255
"""Between the least and the greatest integer of 8 bits."""
_SHARES = np.linspace(1.0, 0.3, 36)
"""What is tried as the share of an end that is kept, each 2 % less than the one before."""
_ROUNDS = 3
"""Times that both ends take turns; the third changes nothing on the networks looked at."""
_MOST = 1 << 14
"""Values of one tensor that count for one sample."""


class Range(NamedTuple):
    """The least and the greatest value that a tensor can hold."""

    low: float
    high: float


def edges(
    inputs: Iterable[T],
    outputs: Iterable[T],
    operators: Sequence[tuple[str, Iterable[T], Iterable[T]]],
) -> set[T]:
    """Return a network's inputs and outputs, and what only moves their values.

    Args:
        inputs: Its inputs.
        outputs: Its outputs.
        operators: Each one's kind, what it reads and what it makes, in the order of the file.
    """
    first, last = set(inputs), set(outputs)
    for kind, reads, makes in operators:
        if kind in MOVERS and first.intersection(reads):
            first.update(makes)
    for kind, reads, makes in reversed(operators):
        if kind in MOVERS and last.intersection(makes):
            last.update(reads)
    return first | last


class Histogram:
    """Counts of values between two ends.

    Args:
        ends: The least and the greatest of all values.

    Example:
        >>> normal = np.random.default_rng(0).normal(size=(100, 16_000))
        >>> histogram = Histogram(Range(-40.0, 40.0))
        >>> for values in normal:
        ...     histogram.add(values)
        >>> [round(end) for end in histogram.least_error()]
        [-12, 12]
    """

    def __init__(self, ends: Range) -> None:
        self.ends = ends
        self.counts = np.zeros(_BINS)

    @property
    def _wide(self) -> bool:
        return self.ends.low < self.ends.high and bool(np.isfinite(self.ends).all())

    def add(self, values: Array) -> None:
        """Count values, of many an even choice; zeros do not count, which no range rounds."""
        if not self._wide:
            return
        flat = values.reshape(-1)
        flat = flat[:: -(-flat.size // _MOST) or 1]
        some = np.clip(flat[flat != 0], *self.ends)
        self.counts += np.histogram(some, _BINS, self.ends)[0]

    def least_error(self) -> Range:
        """Return the range of least squared error within the ends; the ends of one without width.

        Each end goes towards zero, which stays within: converters need it as an exact value.
        """
        if not self._wide or not self.counts.any():
            return self.ends
        low, high = self.ends
        width = (high - low) / _BINS
        values = low + width * (np.arange(_BINS) + 0.5)

        def error(tried: Range) -> float:
            least, greatest = min(tried.low, 0.0), max(tried.high, 0.0)
            step = (greatest - least) / _STEPS
            rounded = np.rint((np.clip(values, least, greatest) - least) / step) * step + least
            return float(self.counts @ np.square(values - rounded))

        best = self.ends
        for _ in range(_ROUNDS):
            best = min((Range(low * share, best.high) for share in _SHARES), key=error)
            best = min((Range(best.low, high * share) for share in _SHARES), key=error)
        return best
