"""What is wrong with an output, decided from its measure: a code, figures and a text each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec

from .channel_groups import Ranges, named
from .defects import Code, Defect
from .measure import GroupFidelity, OutputMeasure

FindingCode = (
    Code
    | Literal[
        "not-finite",
        "group-below",
        "class-lost",
        "sum",
        "not-constant",
        "reference-constant",
        "reference-near-zero",
        "weak-channels",
    ]
)
Severity = Literal["failure", "warning"]

_NEAR_ZERO = 8.0
"""Steps of an 8-bit probability below which all of a group's values count as nearly zero: of a
tolerance's half step."""
_FLOAT_NOISE = 1e-6
"""Share of an output's peak below which a group is rounding noise of the reference itself."""
_FEW = 0.05
"""Share of many features that may be too small for an integer's step."""
_MANY_OF_VECTOR, _MANY = 32, 128
"""Channels from which they are features rather than coordinates and scores."""
_ALONE = 3.0
"""How much larger than a group's a single channel's error must be to say what was done to it: the
noise of one averages out over fewer values."""
_CERTAIN = 0.9
_POSITIONS = 16
"""Values of a channel in each sample from which its noise averages out."""
_POOLED = 8
"""Values in each sample from which a change that is common to all is no chance."""
_CLASSES = 0.2
"""Share of the classes that could be named at least once, from which scores are of classes."""
_SAMPLES = 4
"""Samples from which what their errors look like refuses a file; of fewer it is only told."""
_OF_VARIATION = 0.6
"""The SQNR of what changes that is asked for, over that of the whole, in dB."""
_LOST, _LOST_SHARE, _LOST_MARGIN, _CHANCE = 3, 2e-3, 3.0, 1e-3
"""A class is lost for certain if the reference names it so often, by a margin of so many times the
noise, and chance had to be so small: 1 - agreement, as often."""
_VARIES = {True: 1 / 32, False: 1e-3}
_VARIES_CLASS = 1 / 8
_SUM_FEW, _SUM_MANY = 0.04, 0.15


class Tolerance(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far an output may be from the reference's.

    Attributes:
        min_sqnr_db: Least SQNR of every group of channels, in dB, and of what changes in them:
            a denoiser's picture has a mean that no error touches.
        floor: Error, over the largest value of its group, up to which that second SQNR is not
            asked for: where an output hardly changes, a step of its integers is more.
        excused: The top-1 agreement, over more than one class, that excuses a class output below.
        half_step: Error that a probability may always have: half a step of an 8-bit one; 0 for
            files of floats.
        defect: Error, over the standard deviation, from which a recognised defect counts.
    """

    min_sqnr_db: float
    floor: float
    excused: float | None = None
    half_step: float = 0.0
    defect: float = 0.05


class Finding(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One thing that is wrong or doubtful with an output.

    Attributes:
        code: What.
        severity: "failure" refuses the file, "warning" tells its user.
        output: The output's name.
        channels: Which channels; empty for the whole output.
        figures: The numbers, by name.
        text: All of it in words.
    """

    code: FindingCode
    severity: Severity
    output: str
    channels: Ranges
    figures: dict[str, float]
    text: str


def find(measure: OutputMeasure, tolerance: Tolerance) -> tuple[Finding, ...]:
    """Judge one output; failures come first."""
    if measure.not_finite:
        return (
            _finding(
                measure,
                "not-finite",
                "failure",
                measure.bad_channels,
                {"values": float(measure.not_finite)},
                f"not finite in {measure.not_finite} values",
            ),
        )
    groups = list(_groups(measure, tolerance))
    small = {one.channels for one in groups if one.code != "group-below"}
    found = [
        *groups,
        *_classes(measure, tolerance),
        *(one for one in _defects(measure, tolerance) if one.channels not in small),
        *_constant(measure, tolerance),
    ]
    return tuple(sorted(found, key=lambda one: one.severity != "failure"))


def find_all(measures: Sequence[OutputMeasure], tolerance: Tolerance) -> tuple[Finding, ...]:
    """Judge all outputs; see `find`."""
    return tuple(one for measure in measures for one in find(measure, tolerance))


def failures(found: Sequence[Finding]) -> tuple[str, ...]:
    """The texts of what refuses a file."""
    return tuple(one.text for one in found if one.severity == "failure")


def warnings(found: Sequence[Finding]) -> tuple[str, ...]:
    """The texts of what its user should know."""
    return tuple(one.text for one in found if one.severity == "warning")


def _finding(
    measure: OutputMeasure,
    code: FindingCode,
    severity: Severity,
    channels: Ranges,
    figures: dict[str, float],
    told: str,
) -> Finding:
    whole = not channels or channels == ((0, measure.channels - 1),)
    where = measure.name if whole else f"{measure.name} {named(channels)}"
    return Finding(
        code=code,
        severity=severity,
        output=measure.name,
        channels=channels,
        figures=figures,
        text=f"{where}: {told}",
    )


def _groups(measure: OutputMeasure, tolerance: Tolerance) -> Iterator[Finding]:
    for number, group in enumerate(measure.groups):
        warned = _unjudged(measure, group, tolerance, first=number == 0)
        if warned is not None:
            yield warned
            continue
        if group.sqnr_db is None or _excused(measure, tolerance):
            continue
        if group.probabilities and group.noise <= tolerance.half_step:
            continue
        sqnr, variation = group.sqnr_db, group.variation_db
        least = tolerance.min_sqnr_db * _OF_VARIATION
        low = sqnr < tolerance.min_sqnr_db
        flat = variation is not None and variation < least
        if not low and not (flat and group.noise > tolerance.floor * group.peak):
            continue
        told = f"SQNR {sqnr:.1f} dB; at least {tolerance.min_sqnr_db:g} dB required"
        if not low:
            told = (
                f"SQNR {variation:.1f} dB of what changes in it; at least {least:g} dB required "
                f"({sqnr:.1f} dB with what is constant)"
            )
        classes = measure.classes
        if classes is not None and tolerance.excused and len(measure.groups) == 1:
            told += (
                f" (or the same class for {tolerance.excused:.0%} of the samples: "
                f"{classes.agreement:.1%} over {classes.reference_classes} classes)"
            )
        yield _finding(
            measure,
            "group-below",
            "failure" if low or measure.samples >= _SAMPLES else "warning",
            group.channels,
            {
                "sqnr_db": sqnr,
                "variation_db": sqnr if variation is None else variation,
                "min_sqnr_db": tolerance.min_sqnr_db,
                "peak": group.peak,
            },
            told,
        )


def _unjudged(
    measure: OutputMeasure, group: GroupFidelity, tolerance: Tolerance, *, first: bool
) -> Finding | None:
    """The warning that takes the place of an SQNR where the reference says too little."""
    figures = {"peak": group.peak, "noise": group.noise}
    small = _NEAR_ZERO * tolerance.half_step
    near = group.probabilities and group.peak < small and group.noise <= small
    if near or group.peak < _FLOAT_NOISE * measure.peak:
        return _finding(
            measure,
            "reference-near-zero",
            "warning",
            group.channels,
            figures,
            f"not judged: the reference stays below {group.peak:.2g} on these images; give images "
            "on which it does not, with what these channels detect",
        )
    width = _width(group.channels)
    many = measure.channels >= (_MANY_OF_VECTOR if measure.positions < _POSITIONS else _MANY)
    if tolerance.half_step and not first and many and width < _FEW * measure.channels:
        return _finding(
            measure,
            "weak-channels",
            "warning",
            group.channels,
            figures | {"channels": float(width)},
            f"not judged: {width} of {measure.channels} channels stay below {group.peak:.2g}, "
            f"the others reach {measure.peak:.2g}",
        )
    return None


def _width(channels: Ranges) -> int:
    return sum(last - first + 1 for first, last in channels)


def _excused(measure: OutputMeasure, tolerance: Tolerance) -> bool:
    """Whether the same classes are named, of enough classes to say something.

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


def _classes(measure: OutputMeasure, tolerance: Tolerance) -> Iterator[Finding]:
    classes = measure.classes
    if classes is None or not classes.distribution:
        return
    by_chance = (1 - classes.agreement) ** classes.lost_count
    if classes.lost:
        rows = measure.samples * measure.positions
        certain = (
            classes.lost_count >= max(_LOST, _LOST_SHARE * rows)
            and classes.lost_margin > _LOST_MARGIN * classes.noise
            and by_chance < _CHANCE
        )
        yield _finding(
            measure,
            "class-lost",
            "failure" if certain else "warning",
            classes.lost,
            {"count": float(classes.lost_count), "margin": classes.lost_margin},
            f"never predicted; the reference predicts one of them {classes.lost_count} times",
        )
    apart = classes.total - classes.expected_total
    allowed = _SUM_FEW if measure.channels <= 32 else _SUM_MANY
    if abs(apart) > allowed:
        yield _finding(
            measure,
            "sum",
            "failure",
            (),
            {"total": classes.total, "expected": classes.expected_total},
            f"its probabilities sum to {classes.total:.3g} on average, expected is "
            f"{classes.expected_total:.3g}",
        )


def _constant(measure: OutputMeasure, tolerance: Tolerance) -> Iterator[Finding]:
    constant = measure.constant
    if constant is None:
        return
    allowed = max(
        constant.peak * 10 ** (-tolerance.min_sqnr_db / 20),
        measure.peak / 128 if tolerance.half_step else measure.peak * _FLOAT_NOISE,
        tolerance.half_step,
    )
    figures = {"peak": constant.peak, "noise": constant.noise}
    if constant.noise > allowed:
        yield _finding(
            measure,
            "not-constant",
            "failure",
            constant.channels,
            figures,
            f"constant in the reference, up to {constant.noise:.2g} away from it; allowed is "
            f"{allowed:.2g}",
        )
    else:
        yield _finding(
            measure,
            "reference-constant",
            "warning",
            constant.channels,
            figures,
            "not judged: the reference is constant on these images; give images on which it varies",
        )


def _defects(measure: OutputMeasure, tolerance: Tolerance) -> Iterator[Finding]:
    distribution = measure.classes is not None and measure.classes.distribution
    told: set[str] = set()
    for defect in measure.defects:
        severity = _severity(
            defect, tolerance, distribution=distribution, positions=measure.positions
        )
        if severity is None or (defect.code in told and not defect.pooled):
            continue
        if defect.pooled:
            told.add(defect.code)
        weak = severity == "warning"
        if measure.samples < _SAMPLES and defect.code in ("scale", "offset", "saturated"):
            severity = "warning"
        yield _finding(
            measure,
            "weak-channels" if weak else defect.code,
            severity,
            defect.channels,
            {"explained": defect.explained, "error": defect.error, "size": defect.size},
            _told(defect),
        )


def _severity(
    defect: Defect, tolerance: Tolerance, *, distribution: bool, positions: float
) -> Severity | None:
    integer = tolerance.half_step > 0
    code, error = defect.code, defect.error
    if code == "constant":
        limit = _VARIES_CLASS if distribution and integer else _VARIES[integer]
        return "failure" if defect.size >= limit else None if distribution else "warning"
    if code in ("same-for-all-samples", "inverted"):
        return "failure"
    if code in ("swapped", "moved", "samples-mixed"):
        return "failure" if error >= tolerance.defect else None
    if distribution and code != "offset":
        return None  # a flatter softmax is what a poor file has; its SQNR says how much
    if code == "saturated":
        return "failure" if error >= _ALONE * tolerance.defect else None
    if defect.pooled and positions * _width(defect.channels) >= _POOLED:
        return "failure" if error >= tolerance.defect else None
    # Of a vector's features each has an offset of its own in a sound int8 file: what rounding does
    # to the mean of a layer. Over many positions noise averages out and an offset is visible.
    limit = _ALONE * tolerance.defect if positions >= _POSITIONS else 1.0
    return "failure" if defect.explained >= _CERTAIN and error >= limit else None


def _told(defect: Defect) -> str:
    explained = f"undoing it takes away {defect.explained:.0%} of the error"
    if defect.code == "constant":
        return f"constant where the reference varies over {defect.size:.1%} of the range"
    if defect.code == "same-for-all-samples":
        return "the same for all samples"
    if defect.code == "samples-mixed":
        return f"{defect.detail}; {explained}"
    if defect.code == "swapped":
        return f"channels are exchanged ({defect.detail}); {explained}"
    if defect.code == "moved":
        return f"moved: {defect.detail}; {explained}"
    if defect.code == "inverted":
        return f"inverted: it falls where the reference rises, slope {defect.size:.2f}"
    if defect.code == "scale":
        return f"scaled by {defect.size:.2f}; {explained}"
    if defect.code == "offset":
        return f"shifted by {defect.size:.2f} standard deviations; {explained}"
    return (
        f"saturated {defect.detail}, the reference's range is {defect.size:.0%} larger; there are "
        f"{defect.explained:.0%} of the error"
    )
