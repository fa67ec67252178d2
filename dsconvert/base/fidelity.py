"""How close one model's outputs are to another's, and to the labels.

All functions take arrays with the batch axis first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from .in_batches import filled
from .label_agreement import LabelAgreement, OutputKind, label_agreement
from .output_fidelity.group_error import group_noise
from .output_fidelity.measure import GroupFidelity, OutputMeasure, measure

Array = NDArray[Any]

_TINY = 1e-12
_QUANTITIES = OutputKind()


class OutputFidelity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One output compared with the reference's.

    Attributes:
        name: The output's name.
        finite: Whether every value is finite.
        sqnr_db: Signal to quantization-noise ratio, 10·log10(Σ r² / Σ (r − y)²), in dB; None where
            it is infinite (equal) or undefined.
        relative_error: ‖r − y‖ / ‖r‖ (Frobenius).
        max_abs_error: max |r − y|.
        kl_nats: Mean KL(r ‖ y) per sample in nats, for class distributions only.
        top1_agreement: Share of samples with the same arg max, for class outputs only.
        reference_classes: Number of classes the reference predicts at least once: an agreement of
            1.0 over a single class says nothing.
        measure: The same for each group of channels at its own scale, and what the error looks
            like; None in records of before.
        labels: How far an output of labels, such as classes or selected boxes, names the same;
            None for quantities.
    """

    name: str
    finite: bool
    sqnr_db: float | None
    relative_error: float | None
    max_abs_error: float | None
    kl_nats: float | None = None
    top1_agreement: float | None = None
    reference_classes: int | None = None
    measure: OutputMeasure | None = None
    labels: LabelAgreement | None = None

    @property
    def worst(self) -> GroupFidelity | None:
        """The group of channels of the lowest SQNR, where there are several."""
        if self.measure is None or len(self.measure.groups) < 2:
            return None
        return self.measure.worst

    @property
    def worst_db(self) -> float | None:
        """SQNR of the worst group of channels, else of the whole output; None where equal."""
        return self.sqnr_db if self.worst is None else self.worst.sqnr_db


class Accuracy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A share of correct answers with its 95 % Wilson score interval."""

    correct: int
    total: int
    value: float
    low: float
    high: float


def wilson(correct: int, total: int, z: float = 1.959964) -> Accuracy:
    """Return the share correct/total with its Wilson score interval (95 % for the default z).

    Raises:
        ValueError: If ``total`` is not positive or ``correct`` is outside 0…total.
    """
    if total <= 0 or not 0 <= correct <= total:
        raise ValueError(f"need 0 <= correct <= total and total > 0, got {correct} of {total}")
    p = correct / total
    scale = 1 + z * z / total
    centre = (p + z * z / (2 * total)) / scale
    half = z * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total)) / scale
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    return Accuracy(correct=correct, total=total, value=p, low=min(low, p), high=max(high, p))


def top_k(scores: Array, labels: Array, k: int) -> Accuracy:
    """Top-k accuracy; of equal scores the lower class comes first, as with arg max.

    A sample with a value that is not finite counts as wrong.

    Args:
        scores: (batch, classes), any monotone score.
        labels: (batch,) integer classes.
        k: How many classes may be named.
    """
    return wilson(int(within_top(scores, labels, k).sum()), len(labels))


def within_top(scores: Array, labels: Array, k: int) -> NDArray[np.bool_]:
    """Tell of each sample whether its class is among the k highest scores; see `top_k`."""
    truth = labels.reshape(-1, 1).astype(np.int64)
    true = np.take_along_axis(scores, truth, axis=1)
    earlier = np.arange(scores.shape[1]) < truth
    rank = np.sum((scores > true) | ((scores == true) & earlier), axis=1)
    found: NDArray[np.bool_] = (rank < k) & np.isfinite(scores).all(axis=1)
    return found


def is_class_distribution(outputs: Array) -> bool:
    """Tell whether every row is a probability distribution over at least two classes."""
    return (
        outputs.ndim == 2
        and outputs.shape[1] >= 2
        and bool(np.all(outputs >= -1e-3))
        and bool(np.allclose(outputs.sum(axis=1), 1.0, atol=2e-2))
    )


def kl_divergence(reference: Array, other: Array) -> float:
    """Mean KL(reference ‖ other) in nats over rows of class distributions, (batch, classes)."""
    p = np.asarray(reference, np.float64)
    q = np.asarray(other, np.float64)
    if np.array_equal(p, q):
        return 0.0  # below, probabilities of 0 are held apart from it
    p = np.maximum(p, 0) / np.maximum(p, 0).sum(axis=1, keepdims=True)
    q = np.maximum(q, _TINY)
    q = q / q.sum(axis=1, keepdims=True)
    return float(np.sum(p * (np.log(np.maximum(p, _TINY)) - np.log(q)), axis=1).mean())


def relative_error(reference: Array, other: Array) -> float:
    """‖reference − other‖ / ‖reference‖ in float64; 0 when both are zero, inf when only r is."""
    r = np.asarray(reference, np.float64)
    noise = float(np.linalg.norm(r - other))
    signal = float(np.linalg.norm(r))
    if signal == 0:
        return 0.0 if noise == 0 else math.inf
    return noise / signal


def compare_output(
    name: str,
    reference: Array,
    other: Array,
    kind: OutputKind = _QUANTITIES,
    inputs: Sequence[Array] = (),
) -> OutputFidelity:
    """Compare one output, (batch, ...), with the reference's of the same shape.

    Class outputs are recognised in the reference: two-dimensional with at least two columns. Where
    a sample's rows are as many as the values decide, the one with fewer is filled up.

    Raises:
        ValueError: If the shapes differ.
    """
    if kind.rows is not None and reference.ndim == other.ndim:
        reference, other = filled([reference, other], -1 if kind.labels else 0)
    if reference.shape != other.shape:
        raise ValueError(f"{name}: shape {other.shape} where the reference has {reference.shape}")
    close = measure(name, reference, other, inputs=inputs) if reference.size else None
    if not np.isfinite(other).all():
        return OutputFidelity(
            name=name,
            finite=False,
            sqnr_db=None,
            relative_error=None,
            max_abs_error=None,
            measure=close,
        )
    error = relative_error(reference, other)
    classes = reference.ndim == 2 and reference.shape[1] >= 2
    winners = reference.argmax(axis=1) if classes else None
    return OutputFidelity(
        name=name,
        finite=True,
        sqnr_db=-20 * math.log10(error) if 0 < error < math.inf else None,
        relative_error=error if math.isfinite(error) else None,
        max_abs_error=float(np.max(np.abs(np.asarray(reference, np.float64) - other), initial=0.0)),
        kl_nats=kl_divergence(reference, other) if is_class_distribution(reference) else None,
        top1_agreement=None if winners is None else float(np.mean(winners == other.argmax(axis=1))),
        reference_classes=None if winners is None else int(np.unique(winners).size),
        measure=close,
        labels=label_agreement(reference, other, kind) if kind.labels else None,
    )


def compare_outputs(
    names: Sequence[str],
    references: Sequence[Array],
    others: Sequence[Array],
    kinds: Sequence[OutputKind] = (),
    inputs: Sequence[Array] = (),
) -> tuple[OutputFidelity, ...]:
    """Compare all outputs of two models, in order; see `compare_output`.

    Args:
        names: Their names.
        references: What they should be.
        others: What they are.
        kinds: Of which kind each is; all are quantities by default.
        inputs: What the models were fed: an output of an input's shape is also judged by what the
            model changes in it.
    """
    return tuple(
        compare_output(name, reference, other, kind, inputs)
        for name, reference, other, kind in zip(
            names, references, others, kinds or [_QUANTITIES] * len(names), strict=True
        )
    )


def output_error(references: Sequence[Array], others: Sequence[Array]) -> float:
    """Return one number to choose by: how far the outputs moved, smaller is better.

    The sum over outputs of the mean KL for class distributions and of the squared relative error
    for everything else, the mean over groups of channels of like scale; infinite where any value
    is not finite.
    """
    total = 0.0
    for reference, other in zip(references, others, strict=True):
        if not np.isfinite(other).all():
            return math.inf
        if is_class_distribution(reference):
            total += kl_divergence(reference, other)
        else:
            total += float(np.mean(group_noise(reference, other)))
    return total
