"""Which traces of known defects refuse a file, and what they are called."""

from __future__ import annotations

from collections.abc import Iterator

from .channel_groups import POSITIONS
from .defect import Defect
from .finding import SAMPLES, Finding, Severity, Tolerance, finding, width
from .measure import OutputMeasure

_VARIES_INTEGER, _VARIES_FLOAT = 1 / 32, 1e-3
"""Share of the range over which a channel must vary for being constant to be wrong: eight steps."""
_VARIES_CLASS = 1 / 8
"""The same of a class that is rarely predicted."""
_ALONE = 3.0
"""How much larger than a group's a single channel's error must be: its noise averages out less."""
_ALONE_IN_VECTOR = 1.0
"""Error of a vector's single channel, over its standard deviation. Each has an offset of its own in
a sound int8 file, which is what rounding does to the mean of a layer; over many positions the noise
averages out, and an offset is seen earlier."""
_CERTAIN = 0.9
"""Share of a single channel's error that undoing its defect takes away."""
_CUT_OFF, _OFTEN = 0.15, 0.01
"""Share of the range, and of the values, that no calibration on like images leaves out."""
_SUM = 0.01
"""How far the probabilities' sum must be from the reference's where one class is scaled."""
_POOLED = 8
"""Values in each sample from which a change that is common to all is no chance."""


def find(measure: OutputMeasure, tolerance: Tolerance) -> Iterator[Finding]:
    """Turn the traces that count into findings."""
    told: set[str] = set()
    for defect in measure.defects:
        severity = _severity(measure, defect, tolerance)
        if severity is None or (defect.code in told and not defect.pooled):
            continue
        if defect.pooled:
            told.add(defect.code)
        weak = severity == "warning"
        if measure.samples < SAMPLES and defect.code in ("scale", "offset", "saturated"):
            severity = "warning"
        figures = {"explained": defect.explained, "error": defect.error, "size": defect.size}
        code = "weak-channels" if weak else defect.code
        yield finding(measure, code, severity, defect.channels, figures, _text(defect))


def _severity(measure: OutputMeasure, defect: Defect, tolerance: Tolerance) -> Severity | None:
    """Tell how bad a trace is; None for what sound files show as well."""
    integer = tolerance.half_step > 0
    distribution = measure.classes is not None and measure.classes.distribution
    code, error = defect.code, defect.error
    if code == "constant":
        limit = _VARIES_INTEGER if integer else _VARIES_FLOAT
        if distribution and integer:
            limit = _VARIES_CLASS
        return "failure" if defect.size >= limit else None if distribution else "warning"
    if code in ("same-for-all-samples", "inverted"):
        return "failure"
    if code in ("swapped", "moved", "samples-mixed"):
        return "failure" if error >= tolerance.defect else None
    if distribution and code == "scale" and not defect.pooled and _adds_up(measure, defect):
        return "failure"
    if distribution and code != "offset":
        return None  # a flatter softmax is what a poor file has; its SQNR says how much
    if code == "saturated" and (defect.pooled or measure.positions >= POSITIONS):
        much = defect.size >= _CUT_OFF and defect.often >= _OFTEN
        return "failure" if error >= (1.0 if much else _ALONE) * tolerance.defect else None
    if defect.pooled and measure.positions * width(defect.channels) >= _POOLED:
        return "failure" if error >= tolerance.defect else None
    if defect.far:
        return "failure"
    limit = _ALONE * tolerance.defect if measure.positions >= POSITIONS else _ALONE_IN_VECTOR
    return "failure" if defect.explained >= _CERTAIN and error >= limit else None


def _adds_up(measure: OutputMeasure, defect: Defect) -> bool:
    """Tell whether single classes are scaled, and the sum of all probabilities with them.

    Behind a softmax the others would make up for it.
    """
    classes = measure.classes
    if classes is None or not defect.far:
        return False
    more = classes.total - classes.expected_total
    return abs(more) >= _SUM and (more > 0) == (defect.size > 1)


def _text(defect: Defect) -> str:
    explained = f"undoing it takes away {defect.explained:.0%} of the error"
    size = defect.size
    texts = {
        "constant": f"constant; the reference varies over {size:.1%} of the range",
        "same-for-all-samples": "the same for all samples",
        "samples-mixed": f"{defect.detail}; {explained}",
        "swapped": f"channels are exchanged ({defect.detail}); {explained}",
        "moved": f"{defect.detail}; {explained}",
        "inverted": f"inverted: falls where the reference rises, slope {size:.2f}",
        "scale": f"scaled by {size:.2f}; {explained}",
        "offset": f"shifted by {size:.2f} standard deviations; {explained}",
        "saturated": f"cut off {defect.detail}: {size:.0%} of the reference's range is missing",
    }
    return texts[defect.code]
