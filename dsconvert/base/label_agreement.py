"""How far two outputs name the same things: classes, places, selected boxes.

Such numbers are no quantities: box 17 in place of box 16 is another box, not a small error. And
the boxes that NMS selects are a set, in whatever order they come.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import msgspec
import numpy as np

from .predictor import Array

LABEL_TYPES = ("int32", "int64", "uint32", "uint64", "bool")
"""Types of what names things; narrower whole numbers are quantities, such as pixels."""


@dataclass(frozen=True)
class OutputKind:
    """The kind of an output: what its values are, and whether a sample's rows are a set.

    Attributes:
        labels: Whether its values are names of things.
        rows: The axis of the rows of each sample where their number depends on the values; they
            are filled up, labels with −1. None where it does not.
    """

    labels: bool = False
    rows: int | None = None


class LabelAgreement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Labels compared with the reference's.

    Attributes:
        agreement: The share of the labels, or of a sample's rows in any order, that are the same.
        kappa: The same beyond what the commonest labels agree by chance (Cohen's kappa); None where
            the reference names one thing only.
        labels: How many there are.
        distinct: How many different ones the reference names.
    """

    agreement: float
    kappa: float | None
    labels: int
    distinct: int


def label_agreement(reference: Array, other: Array, kind: OutputKind) -> LabelAgreement:
    """Compare two outputs of labels, (n, ...) of the same shape.

    Args:
        reference: What they should be.
        other: What they are.
        kind: Of the output.

    Example:
        >>> first, second = np.array([[[0, 7], [1, 3]]]), np.array([[[1, 3], [0, 8]]])
        >>> label_agreement(first, second, OutputKind(True, rows=1)).agreement
        0.5
    """
    if kind.rows is not None:
        return _rows(reference, other, kind.rows)
    r, y = reference.ravel(), other.ravel()
    if not r.size:
        return LabelAgreement(agreement=1.0, kappa=None, labels=0, distinct=0)
    names, which = np.unique(np.concatenate([r, y]), return_inverse=True)
    counts = [np.bincount(part, minlength=len(names)) for part in np.split(which, 2)]
    same, chance = float(np.mean(r == y)), float(np.dot(*(c / r.size for c in counts)))
    distinct = int(np.count_nonzero(counts[0]))
    kappa = (same - chance) / (1 - chance) if distinct > 1 and chance < 1 else None
    return LabelAgreement(agreement=same, kappa=kappa, labels=r.size, distinct=distinct)


def _rows(reference: Array, other: Array, axis: int) -> LabelAgreement:
    """Compare the sets of rows of each sample; a row is as good as any other by chance."""
    same = total = 0
    seen: set[tuple[float, ...]] = set()
    sides = (np.moveaxis(array, axis, 1) for array in (reference, other))
    for one, another in zip(*sides, strict=True):
        expected, got = _counted(one), _counted(another)
        same += sum((expected & got).values())
        total += max(expected.total(), got.total())
        seen |= expected.keys()
    agreement = same / total if total else 1.0
    kappa = agreement if len(seen) > 1 or same < total else None
    return LabelAgreement(agreement=agreement, kappa=kappa, labels=total, distinct=len(seen))


def _counted(rows: Array) -> Counter[tuple[float, ...]]:
    """Count the rows of one sample, without those that fill it up."""
    flat = rows.reshape(len(rows), -1)
    return Counter(tuple(row) for row in flat.tolist() if not row or max(row) >= 0)
