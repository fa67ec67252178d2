"""Which file to use, and what it gains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from dsconvert.converter.core.planning.limits import parse_limit

from .. import formatting

if TYPE_CHECKING:
    from dsconvert.base.fidelity import OutputFidelity
    from dsconvert.models.evaluation.metrics import MetricValue

    from ..results.evaluated import EvaluatedModel
    from ..results.optimized import FileFigures, Timing

_ALIKE = 1.03
"""Times slower up to which the smaller file is taken: timers tell no less apart."""


class Recommendation(msgspec.Struct, frozen=True, kw_only=True):
    """What is recommended.

    Attributes:
        file: Its name; empty if no file is fit.
        why: Why it is that one, or why none is.
        missed: By how much the target is missed, and what to try; empty if it is not.
    """

    file: str
    why: str
    missed: str


def score(found: EvaluatedModel) -> MetricValue | None:
    """Return the metric that was asked for, else top-1 where it was measured."""
    from dsconvert.models.evaluation.metrics import MetricValue

    if found.metrics:
        return found.metrics[0]
    if found.top1 is None:
        return None
    return MetricValue(
        name="top1",
        title="top-1",
        unit="share",
        larger_is_better=True,
        value=found.top1.value,
        low=found.top1.low,
        high=found.top1.high,
        interval="wilson",
        samples=found.samples,
    )


def loss_of(original: EvaluatedModel) -> str:
    """Tell what losses are of, by what the original's outputs are."""
    known = score(original)
    if known is not None:
        return known.title
    if any(output.top1_agreement is not None for output in original.fidelity):
        return "changed classes"
    return "noise"


def loss(original: EvaluatedModel, found: EvaluatedModel) -> float | None:
    """Tell what a file loses against the original, as `loss_of` says.

    Args:
        original: The original model, compared with itself.
        found: The file.

    Returns:
        In the metric's unit, or a share; None where it is not known. Negative is a gain.
    """
    before, after = score(original), score(found)
    if before is not None:
        if before.value is None or after is None or after.value is None:
            return None
        lost = before.value - after.value
        return round(lost if before.larger_is_better else -lost, 9)
    if loss_of(original) == "changed classes":
        shares = [
            output.top1_agreement for output in found.fidelity if output.top1_agreement is not None
        ]
        return 1 - min(shares) if shares else None
    told = [noise(output) for output in found.fidelity]
    known = [share for share in told if share is not None]
    return max(known) if known and len(known) == len(told) else None


def noise(output: OutputFidelity) -> float | None:
    """Return the share of noise in an output's worst group; None where it is not known."""
    if not output.finite:
        return None
    if output.worst_db is not None:
        return float(10 ** (-output.worst_db / 10))
    error = output.relative_error
    return None if error is None else float(error**2)  # 0 where all is equal


def recommend(
    files: Sequence[FileFigures],
    allowed: float,
    target: str | None,
    kind: str,
    unit: str = "share",
) -> Recommendation:
    """Choose the fastest file that loses no more than is allowed; of files alike, the smallest.

    Args:
        files: All files; the first is the baseline.
        allowed: The most that may be lost.
        target: The latency asked for, as "0.5x" or "3ms"; None if none was.
        kind: What losses are of.
        unit: Of losses: "share", "dB" or that of the labels.
    """
    made = [file for file in files if not file.failure and file.verified]
    fit = [file for file in made if file.loss is not None and file.loss <= allowed + 1e-9]
    if not fit:
        return Recommendation(
            file="",
            why=_none_is_fit(made, formatting.amount(allowed, unit), kind, unit),
            missed=_no_file(target),
        )
    timed = [file for file in fit if file.timing is not None]
    if not timed:
        best = min(fit, key=lambda file: file.size_bytes)
        return Recommendation(
            file=best.name, why="the smallest file; none was timed", missed=_no_file(target)
        )
    fastest = min(_time(file) for file in timed)
    alike = [file for file in timed if _time(file) <= _ALIKE * fastest]
    best = min(alike, key=lambda file: file.size_bytes)
    why = _why(best, files, formatting.amount(allowed, unit), kind, unit)
    return Recommendation(file=best.name, why=why, missed=_missed(best, files, target, unit))


def _time(file: FileFigures) -> float:
    assert file.timing is not None, "only timed files are compared"
    return file.timing.value


def _why(
    best: FileFigures, files: Sequence[FileFigures], allowed: str, kind: str, unit: str
) -> str:
    baseline = next((file for file in files if not file.failure), best)
    if best.name == baseline.name:
        return f"no file is faster that loses at most {allowed} of {kind}"
    timing = best.timing
    assert timing is not None, "only timed files are compared"
    size = formatting.change(baseline.size_bytes, best.size_bytes).replace("fewer", "smaller")
    return (
        f"{1 / timing.ratio:.2f}× as fast{_interval(timing)} and "
        f"{size.replace('more', 'larger')} than {baseline.name}; {_lost(best, kind, unit)}, "
        f"{allowed} allowed"
    )


def _interval(timing: Timing) -> str:
    return "" if timing.low == timing.high else f" ({1 / timing.high:.2f}–{1 / timing.low:.2f})"


def _lost(file: FileFigures, kind: str, unit: str) -> str:
    if file.loss is not None and file.loss < 0:
        return f"{formatting.amount(-file.loss, unit)} of {kind} gained"
    return f"{formatting.amount(file.loss, unit)} of {kind} lost"


def _missed(best: FileFigures, files: Sequence[FileFigures], target: str | None, unit: str) -> str:
    timing = best.timing
    if target is None or timing is None:
        return ""
    limit = parse_limit(target, "latency")
    reached, low = (timing.ratio, timing.low) if limit.relative else (timing.value, timing.value)
    if low <= limit.value:
        return ""
    told = f"{reached:.2f}x" if limit.relative else f"{reached:.3g} {timing.unit}"
    faster = [
        file
        for file in files
        if file.timing is not None and file.verified and _time(file) < _time(best)
    ]
    text = f"the target is {target}, the fastest fit file reaches {told}."
    if faster:
        other = min(faster, key=_time)
        lost = formatting.amount(other.loss, unit)
        return (
            f"{text} {other.name} is faster and loses {lost}: more --epochs may mend that; or "
            "allow a larger --max-drop."
        )
    return f"{text} Try other --formats (int8), a larger target, or more training data."


def _no_file(target: str | None) -> str:
    return "" if target is None else f"the target is {target}, and no fit file was timed."


def _none_is_fit(made: Sequence[FileFigures], allowed: str, kind: str, unit: str) -> str:
    known = [file for file in made if file.loss is not None]
    if not known:
        return "no file passed its verification"
    best = min(known, key=lambda file: file.loss or 0.0)
    return (
        f"{best.name} loses least, {formatting.amount(best.loss, unit)} of {kind}; "
        f"{allowed} is allowed"
    )
