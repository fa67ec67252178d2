"""How close a file's outputs must be to its model's: by how it stores numbers, or as asked."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from dsconvert.base.fidelity import OutputFidelity
from dsconvert.base.label_agreement import LabelAgreement
from dsconvert.base.output_fidelity import Finding, FindingCode, Tolerance, failures, find

from ..runtimes.precision import Precision
from ..schemes import SCHEMES

_SOFT = ("scale", "offset", "saturated", "group-below")
"""What is no more than told where thresholds were asked for that allow it."""
_MANY = 16
"""Samples from which an output that hardly changes is taken for one that changes no more."""


def tolerance_of(precision: Precision) -> Tolerance:
    """Tell how close a file must be of which only the precision is known."""
    return next(one.tolerance for one in SCHEMES.values() if one.stores == precision)


class Thresholds(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every output must reach; None asks for nothing.

    Attributes:
        min_sqnr_db: SQNR in dB of every group of channels.
        min_agreement: Top-1 agreement of class outputs, 0.99 for 99 %, over more than one class.
        max_kl_nats: Mean KL divergence of class distributions in nats.
        excused: With a default ``min_sqnr_db`` alone: the top-1 agreement, over more than one
            class, that excuses a class output below it.

    Example:
        >>> import dsconvert as ds
        >>> ds.Thresholds(min_sqnr_db=20, max_kl_nats=0.01).min_agreement is None
        True
    """

    min_sqnr_db: float | None = None
    min_agreement: float | None = None
    max_kl_nats: float | None = None
    excused: float | None = None

    @classmethod
    def of(cls, tolerance: Tolerance) -> Thresholds:
        """Return those of a file of which nothing else is asked."""
        return cls(min_sqnr_db=tolerance.min_sqnr_db, excused=tolerance.excused)


def judge_outputs(
    outputs: Sequence[OutputFidelity],
    tolerance: Tolerance,
    asked: Thresholds | None = None,
    *,
    real: bool = False,
) -> tuple[Finding, ...]:
    """Find what is wrong, or doubtful, with the outputs of a file.

    Args:
        outputs: How close they are.
        tolerance: What its quantization allows.
        asked: Thresholds instead of the SQNR that the quantization asks for. An output that they
            allow may be scaled, shifted or cut off; a dead, exchanged or moved one is refused in
            any case.
        real: Whether these are answers to real inputs, on which an output changes as it should.

    Returns:
        The findings on each output, its failures first.
    """
    return tuple(
        one
        for output in outputs
        for one in _certain(output, _judged(output, tolerance, asked), real and asked is None)
    )


def remarks(outputs: Sequence[OutputFidelity]) -> tuple[str, ...]:
    """Return what a reader should not be misled by."""
    return tuple(
        f"{output.name}: the reference predicts a single class on these samples; its top-1 "
        "agreement proves nothing"
        for output in outputs
        if output.finite and output.reference_classes == 1
    )


def _judged(
    output: OutputFidelity, tolerance: Tolerance, asked: Thresholds | None
) -> list[Finding]:
    if output.measure is None:  # an output of no values
        return []
    if asked is None:
        found = list(find(output.measure, tolerance))
        return (
            found if output.labels is None else _of_labels(output, output.labels, found, tolerance)
        )
    least = -math.inf if asked.min_sqnr_db is None else asked.min_sqnr_db
    allowed = msgspec.structs.replace(
        tolerance, min_sqnr_db=least, excused=asked.excused, strict=True
    )
    found = [
        msgspec.structs.replace(one, severity="warning")
        if one.code in _SOFT and not _below(one, least)
        else one
        for one in find(output.measure, allowed)
    ]
    found += _asked(output, asked)
    return sorted(found, key=lambda one: one.severity != "failure")


def _certain(output: OutputFidelity, found: list[Finding], real: bool) -> list[Finding]:
    """Let an output be refused whose changes are all lost: that of a regression far from 0.

    A part of an output may detect what these images do not show.
    """
    lost = [one for one in found if one.code == "changes-lost"]
    measure = output.measure
    if not real or measure is None or measure.samples < _MANY or len(lost) < len(measure.groups):
        return found
    return [
        msgspec.structs.replace(one, severity="failure") if one in lost else one for one in found
    ]


def _of_labels(
    output: OutputFidelity, labels: LabelAgreement, found: list[Finding], tolerance: Tolerance
) -> list[Finding]:
    """Return what is wrong with labels: their numbers may be far apart, where few differ."""
    if not failures(found):
        return found
    share = f"{labels.agreement:.1%} of its {labels.labels:,} labels are the reference's"
    figures = {"agreement": labels.agreement, "min_kappa": tolerance.labels}
    if labels.kappa is None or labels.kappa < tolerance.labels:
        if labels.kappa is not None:
            figures["kappa"] = labels.kappa
            share += f", a kappa of {labels.kappa:.2f}; at least {tolerance.labels:g} required"
        return [_finding(output, "labels-below", figures, f"{output.name}: {share}"), *found]
    told = _finding(output, "labels-differ", figures, f"{output.name}: {share}")
    return [msgspec.structs.replace(told, severity="warning")]


def _below(finding: Finding, least: float) -> bool:
    return finding.code == "group-below" and finding.figures["sqnr_db"] < least


def _asked(output: OutputFidelity, asked: Thresholds) -> list[Finding]:
    """Return what misses the thresholds on classes."""
    found = []
    agreement, kl = output.top1_agreement, output.kl_nats
    if asked.min_agreement is not None and agreement is not None:
        figures = {"agreement": agreement, "min_agreement": asked.min_agreement}
        text = f"{output.name}: top-1 agreement {agreement:.1%}"
        if agreement < asked.min_agreement:
            told = f"{text}; at least {asked.min_agreement:.1%} required"
            found.append(_finding(output, "agreement-below", figures, told))
        elif output.reference_classes == 1:
            told = f"{text} over a single class, which proves nothing"
            found.append(_finding(output, "single-class", figures, told))
    if asked.max_kl_nats is not None and kl is not None and kl > asked.max_kl_nats:
        figures = {"kl_nats": kl, "max_kl_nats": asked.max_kl_nats}
        told = f"{output.name}: KL divergence {kl:.3g} nats; at most {asked.max_kl_nats:g} allowed"
        found.append(_finding(output, "kl-above", figures, told))
    return found


def _finding(
    output: OutputFidelity, code: FindingCode, figures: dict[str, float], text: str
) -> Finding:
    return Finding(
        code=code,
        severity="failure",
        output=output.name,
        channels=(),
        figures=figures,
        text=text,
    )
