"""The record of something that is wrong with an output, and how much may be."""

from __future__ import annotations

from typing import Literal

import msgspec

from .channel_groups import Ranges, named
from .defect import Code
from .measure import OutputMeasure

FindingCode = (
    Code
    | Literal[
        "not-finite",
        "group-below",
        "changes-lost",
        "class-lost",
        "sum",
        "not-constant",
        "reference-constant",
        "reference-near-zero",
        "weak-channels",
        "agreement-below",
        "single-class",
        "kl-above",
        "labels-below",
        "labels-differ",
        "read-otherwise",
    ]
)
Severity = Literal["failure", "warning"]

SAMPLES = 4
"""Samples from which what their errors look like refuses a file; of fewer it is only told."""


class Tolerance(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far an output may be from the reference's.

    Attributes:
        min_sqnr_db: Least SQNR of every group of channels, in dB, and of what changes in them:
            a denoiser's picture has a mean that no error touches.
        floor: Error, over the largest value of its group, up to which that second SQNR is not
            asked for: where an output hardly changes, a step of its integers is more.
        excused: The top-1 agreement, over more than one class, that excuses a class output below.
        half_step: Half a step of an 8-bit probability; 0 for files of floats.
        strict: Whether a probability needs its SQNR even where its error is below half a step.
        defect: Error, over the standard deviation, from which a recognised defect counts.
        labels: Least kappa of an output of labels, which makes up for any SQNR of their numbers.
        still: Error, over the output's largest value, that a constant channel may have: what
            rounding leaves of values as large as that one.
    """

    min_sqnr_db: float
    floor: float
    excused: float | None = None
    half_step: float = 0.0
    strict: bool = False
    defect: float = 0.05
    labels: float = 0.99
    still: float = 1e-6


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


def finding(
    measure: OutputMeasure,
    code: FindingCode,
    severity: Severity,
    channels: Ranges,
    figures: dict[str, float],
    told: str,
) -> Finding:
    """Make a finding whose text begins with the output and its channels."""
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


def width(channels: Ranges) -> int:
    """Tell how many channels there are."""
    return sum(last - first + 1 for first, last in channels)
