"""What is wrong with an output, decided from its measure: a code, figures and a text each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from . import defect_findings
from .channel_groups import are_many, are_scores
from .finding import SAMPLES, Finding, Severity, Tolerance, finding, width
from .measure import GroupFidelity, OutputMeasure

_NEAR_ZERO = 8.0
"""Half steps of an 8-bit probability below which all of a group's values count as nearly zero."""
_FLOAT_NOISE = 1e-6
"""Share of an output's peak below which a group is rounding noise of the reference itself."""
_FEW, _WEAK = 0.05, 1 / 32
"""Share of many features that may be too small for an integer's step, and how small: 8 steps."""
_OF_VARIATION = 0.6
"""The SQNR of what changes that is asked for, over that of the whole, in dB."""
_OF_CHANGE = 0.3
"""The SQNR of what a model changes in its input that is asked for, over that of the whole."""
_LITTLE = 15.0
"""How many dB an output's variance may be above what the model changes. A denoiser
of clean pictures changes nearly nothing, and its rounding is more."""
_CLASSES = 0.2
"""Share of the classes that could be named at least once, from which scores are of classes."""
_LOST, _LOST_SHARE, _LOST_MANY, _LOST_KEPT = 3, 2e-3, 32, 0.5
"""A class is lost for certain if the reference names it so often, in such a share of places or in
so many, and less than this is left of its probability there."""
_SUM_FEW, _SUM_MANY = 0.04, 0.15
"""How far a sum of at most 32, or of more, probabilities may be from what rounding leaves."""


def find(measure: OutputMeasure, tolerance: Tolerance) -> tuple[Finding, ...]:
    """Judge one output; failures come first.

    Args:
        measure: How close the output is.
        tolerance: How close the file must be.

    Example:
        >>> import numpy as np
        >>> from dsconvert.base.output_fidelity.measure import measure
        >>> boxes = np.array([[640.0, 0.9], [320.0, 0.1], [100.0, 0.5], [500.0, 0.2]])
        >>> dead = boxes * [1, 0]
        >>> found = find(measure("boxes", boxes, dead), Tolerance(min_sqnr_db=10, floor=0.01))
        >>> found[0].text
        'boxes channel 1: SQNR 0.0 dB; at least 10 dB required'
    """
    if measure.not_finite:
        count = measure.not_finite
        told = f"not finite in {count} value{'s' * (count > 1)}"
        figures = {"values": float(count)}
        return (finding(measure, "not-finite", "failure", measure.bad_channels, figures, told),)
    groups = list(_groups(measure, tolerance))
    unjudged = {one.channels for one in groups if one.code != "group-below"}
    found = [
        *groups,
        *_classes(measure),
        *(one for one in defect_findings.find(measure, tolerance) if one.channels not in unjudged),
        *_constant(measure, tolerance),
    ]
    return tuple(sorted(found, key=lambda one: one.severity != "failure"))


def find_all(measures: Sequence[OutputMeasure], tolerance: Tolerance) -> tuple[Finding, ...]:
    """Judge all outputs; see `find`."""
    return tuple(one for measure in measures for one in find(measure, tolerance))


def failures(found: Sequence[Finding]) -> tuple[str, ...]:
    """Return the texts of what refuses a file."""
    return tuple(one.text for one in found if one.severity == "failure")


def warnings(found: Sequence[Finding]) -> tuple[str, ...]:
    """Return the texts of what its user should know."""
    return tuple(one.text for one in found if one.severity == "warning")


def _groups(measure: OutputMeasure, tolerance: Tolerance) -> Iterator[Finding]:
    """Groups of too low an SQNR, and those that no SQNR can judge."""
    for number, group in enumerate(measure.groups):
        unjudged = _unjudged(measure, group, tolerance, first=number == 0)
        if unjudged is not None:
            yield unjudged
        elif not _excused(measure, tolerance):
            yield from _below(measure, group, tolerance)


def _below(measure: OutputMeasure, group: GroupFidelity, tolerance: Tolerance) -> Iterator[Finding]:
    sqnr, variation = group.sqnr_db, group.variation_db
    small = group.probabilities and not measure.shares
    rounding = small and group.noise <= tolerance.half_step
    if sqnr is None or (rounding and not tolerance.strict):
        return
    least = tolerance.min_sqnr_db * _OF_VARIATION
    low = sqnr < tolerance.min_sqnr_db
    flat = variation is not None and variation < least
    handed_on = group.change_db is not None and group.change_db < tolerance.min_sqnr_db * _OF_CHANGE
    if not low and not ((flat or handed_on) and group.noise > tolerance.floor * group.peak):
        yield from _lost(measure, group, tolerance)
        return
    told = f"SQNR {_decibels(sqnr)} dB; at least {tolerance.min_sqnr_db:g} dB required"
    if not low and not flat:
        told = (
            f"SQNR {_decibels(group.change_db or 0.0)} dB of what the model changes in its input; "
            f"at least {tolerance.min_sqnr_db * _OF_CHANGE:g} dB required ({sqnr:.1f} dB with what "
            "it hands on)"
        )
    elif not low:
        told = (
            f"SQNR {_decibels(variation or 0.0)} dB of what changes in it; at least {least:g} dB "
            f"required ({sqnr:.1f} dB with what is constant)"
        )
    classes = measure.classes
    if classes is not None and tolerance.excused and len(measure.groups) == measure.positions == 1:
        told += (
            f" (or the same class for {tolerance.excused:.0%} of the samples: "
            f"{classes.agreement:.1%} over {classes.reference_classes} classes)"
        )
    figures = {
        "sqnr_db": sqnr,
        "variation_db": sqnr if variation is None else variation,
        "min_sqnr_db": tolerance.min_sqnr_db,
        "peak": group.peak,
    }
    certain = low or measure.samples >= SAMPLES
    if handed_on and not low and not flat and (variation or 0.0) > (group.change_db or 0) + _LITTLE:
        certain = False
        told += "; the model changes little on these images: give images like those it is made for"
    severity: Severity = "failure" if certain else "warning"
    yield finding(measure, "group-below", severity, group.channels, figures, told)


def _lost(measure: OutputMeasure, group: GroupFidelity, tolerance: Tolerance) -> Iterator[Finding]:
    """Changes that are smaller than the steps of an integer that also holds what is constant."""
    sqnr, variation = group.sqnr_db, group.variation_db
    if sqnr is None or variation is None or variation >= 0:
        return
    if not tolerance.half_step or group.probabilities:
        return
    told = (
        f"what changes in it is lost in rounding: SQNR {_decibels(variation)} dB of that "
        f"({sqnr:.1f} dB with what is constant); --quantize dynamic keeps it"
    )
    figures = {"sqnr_db": sqnr, "variation_db": variation, "peak": group.peak}
    yield finding(measure, "changes-lost", "warning", group.channels, figures, told)


def _decibels(value: float) -> str:
    """Rounded, 0.0 without a sign."""
    return f"{round(value, 1) + 0.0:.1f}"


def _unjudged(
    measure: OutputMeasure, group: GroupFidelity, tolerance: Tolerance, *, first: bool
) -> Finding | None:
    """Return the warning that takes the place of an SQNR where the reference says too little."""
    figures = {"peak": group.peak, "noise": group.noise}
    small = 0.0 if measure.shares else _NEAR_ZERO * tolerance.half_step
    near = group.probabilities and group.peak < small and group.noise <= small
    if near or group.peak < _FLOAT_NOISE * measure.peak:
        told = (
            f"not judged: the reference stays below {group.peak:.2g} on these images; give images "
            "with what these channels detect"
        )
        return finding(measure, "reference-near-zero", "warning", group.channels, figures, told)
    count = width(group.channels)
    many = are_many(measure.channels, measure.positions)
    scores = group.probabilities and are_scores(0.0, group.peak)
    weak = not first and many and not scores and group.peak < _WEAK * measure.peak
    if tolerance.half_step and weak and count < _FEW * measure.channels:
        told = (
            f"not judged: {count} of {measure.channels} channels stay below {group.peak:.2g}, the "
            f"others reach {measure.peak:.2g}"
        )
        figures |= {"channels": float(count)}
        return finding(measure, "weak-channels", "warning", group.channels, figures, told)
    return None


def _excused(measure: OutputMeasure, tolerance: Tolerance) -> bool:
    """Tell whether the same classes are named, of enough classes to say something.

    The largest of a vector's features is one of few: such a vector holds no scores of classes.
    """
    classes = measure.classes
    if classes is None or tolerance.excused is None:
        return False
    few = 1 if classes.distribution else min(measure.channels, measure.samples) * _CLASSES
    return (
        len(measure.groups) == measure.positions == 1
        and classes.reference_classes > max(1, few)
        and classes.agreement >= tolerance.excused
    )


def _classes(measure: OutputMeasure) -> Iterator[Finding]:
    """Classes that are never named any more, and probabilities of another sum than one."""
    classes = measure.classes
    if classes is None or not classes.distribution:
        return
    count = classes.lost_count
    if count:
        certain = (
            count >= min(max(_LOST, _LOST_SHARE * measure.samples * measure.positions), _LOST_MANY)
            and classes.lost_kept < _LOST_KEPT
        )
        severity: Severity = "failure" if certain else "warning"
        figures = {"count": float(count), "kept": classes.lost_kept}
        times = "once" if count == 1 else f"{count} times"
        told = f"never predicted; predicted {times} by the reference"
        yield finding(measure, "class-lost", severity, classes.lost, figures, told)
    allowed = _SUM_FEW if measure.channels <= 32 else _SUM_MANY
    # A file may round small probabilities away, as int8 does, or keep them.
    low, high = sorted((classes.expected_total, 1.0))
    if not low - allowed <= classes.total <= high + allowed:
        told = (
            f"its probabilities sum to {classes.total:.3g} on average; "
            f"{classes.expected_total:.3g} expected"
        )
        figures = {"total": classes.total, "expected": classes.expected_total}
        yield finding(measure, "sum", "failure", (), figures, told)


def _constant(measure: OutputMeasure, tolerance: Tolerance) -> Iterator[Finding]:
    """Channels of one value in the reference: nothing to judge, unless they have another one."""
    constant = measure.constant
    if constant is None:
        return
    allowed = max(
        constant.peak * 10 ** (-tolerance.min_sqnr_db / 20),
        measure.peak * (1 / 128 if tolerance.half_step else tolerance.still),
        tolerance.half_step,
    )
    figures = {"peak": constant.peak, "noise": constant.noise}
    if constant.noise > allowed:
        told = (
            f"constant in the reference, up to {constant.noise:.2g} away from it; at most "
            f"{allowed:.2g} allowed"
        )
        yield finding(measure, "not-constant", "failure", constant.channels, figures, told)
        return
    told = "not judged: the reference is constant on these images; give images on which it varies"
    yield finding(measure, "reference-constant", "warning", constant.channels, figures, told)
