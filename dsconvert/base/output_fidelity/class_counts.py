"""Which classes two outputs name, counted batch by batch."""

from __future__ import annotations

import msgspec
import numpy as np

from ..predictor import Array
from .channel_groups import Ranges, as_ranges

_STEP = 256
"""Steps of an 8-bit probability."""
_LOW, _SUM = -1e-3, 2e-2
"""A distribution has no value below the one and a sum that is 1 but for the other."""


class ClassFidelity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Scores of classes compared with the reference's.

    Attributes:
        distribution: Whether the reference's are probabilities that sum to one.
        agreement: Share of samples and positions with the same arg max.
        reference_classes: How many classes the reference names at least once.
        lost: Classes that the reference names and the other output never.
        lost_count: How often the reference names the commonest of them.
        lost_kept: What the other output gives the lost classes where the reference names them, over
            what the reference gives: near 1 for a narrow decision, near 0 for a dead class.
        total: The mean of Σ p of the other output.
        expected_total: The same of the reference, once rounded to 1/256, which takes small ones
            away.
    """

    distribution: bool
    agreement: float
    reference_classes: int
    lost: Ranges
    lost_count: int
    lost_kept: float
    total: float
    expected_total: float


class ClassCounts:
    """Counts arg maxima over the last axis of a reference and another output.

    Scores of classes are (n, classes) of any kind, and class distributions of more axes.

    Args:
        classes: How many there are.
    """

    def __init__(self, classes: int) -> None:
        self.reference = np.zeros(classes, np.int64)
        self.other = np.zeros(classes, np.int64)
        self.given = np.zeros((2, classes))
        self.same = 0
        self.rows = 0
        self.total = self.expected = 0.0
        self.scores = self.distribution = classes >= 2

    def add(self, reference: Array, other: Array) -> None:
        """Add a batch of both, (n, ..., classes); nothing more once one is no score of classes."""
        if not self.scores or not reference.size:
            return
        r = np.asarray(reference.reshape(-1, reference.shape[-1]), np.float64)
        self.distribution = self.distribution and is_distribution(r)
        self.scores = self.distribution or reference.ndim == 2
        if not self.scores:
            return
        y = np.asarray(other.reshape(r.shape), np.float64)
        y = np.where(np.isfinite(y), y, 0.0)
        named, ours = r.argmax(axis=1), y.argmax(axis=1)
        size = len(self.reference)
        self.reference += np.bincount(named, minlength=size)
        self.other += np.bincount(ours, minlength=size)
        for side, values in enumerate((r, y)):
            best = np.take_along_axis(values, named[:, None], axis=1)[:, 0]
            self.given[side] += np.bincount(named, weights=best, minlength=size)
        self.same += int((named == ours).sum())
        self.rows += len(r)
        self.total += float(y.sum())
        self.expected += float((np.rint(r * _STEP) / _STEP).sum())

    def result(self) -> ClassFidelity | None:
        """Return what was counted; None if the reference holds no scores of classes."""
        if not self.scores or not self.rows:
            return None
        lost = (self.reference > 0) & (self.other == 0)
        given, kept = self.given[:, lost].sum(axis=1)
        return ClassFidelity(
            distribution=self.distribution,
            agreement=self.same / self.rows,
            reference_classes=int((self.reference > 0).sum()),
            lost=as_ranges(np.flatnonzero(lost)),
            lost_count=int(self.reference[lost].max(initial=0)),
            lost_kept=float(kept / given) if given > 0 else 1.0,
            total=self.total / self.rows,
            expected_total=self.expected / self.rows,
        )


def is_distribution(rows: Array) -> bool:
    """Tell whether every row, (n, classes), holds probabilities of classes: they sum to one."""
    if rows.shape[1] < 2:
        return False
    return bool(np.all(rows >= _LOW)) and _is_one(rows.sum(axis=1, dtype=np.float64))


def are_shares(values: Array) -> bool:
    """Tell whether values, (n, ..., C), are shares of one whole: a softmax over the positions.

    They sum to one along all axes of a sample, along those of the positions, or along one of these.
    A heat map of 64 × 64 holds nothing but small ones.
    """
    if values.ndim < 3 or not np.all(values >= _LOW):
        return False
    places = tuple(range(1, values.ndim - 1))
    over = [(*places, values.ndim - 1), places, *((axis,) for axis in places)]
    return any(_is_one(values.sum(axis=axes, dtype=np.float64)) for axes in over)


def _is_one(sums: Array) -> bool:
    return bool(np.all(np.abs(sums - 1) <= _SUM))
