"""The record of a known defect, and what the searches for them share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec
import numpy as np

from .channel_groups import Ranges, as_ranges
from .channel_sums import Float, Mask

Code = Literal[
    "constant",
    "same-for-all-samples",
    "samples-mixed",
    "swapped",
    "moved",
    "inverted",
    "scale",
    "offset",
    "saturated",
]
Channels = np.ndarray[tuple[int], np.dtype[np.intp]]

EXPLAINED = 0.75
"""Share of the error power that undoing a defect must take away: 6 dB."""
STILL = 0.05
"""Share of the reference's standard deviation up to which an output hardly changes."""
FEWEST = 8
"""Values of a channel from which its statistics say something."""


class Defect(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an output looks like.

    Attributes:
        code: What was done to it.
        channels: To which channels.
        explained: The share of these channels' error power that undoing it takes away, 0 … 1.
        error: The error of these channels over their standard deviation in the reference.
        size: How large it is: ŷ ≈ slope · y (scale, inverted), offset over the standard deviation,
            the lost share of the range (saturated), the steps moved, the share of the range in
            which the reference varies (constant), the share of samples or channels.
        pooled: Whether it holds for a group of channels alike; else for each of them on its own.
        detail: Which way, in words.
        often: The share of the values that are beyond the limit (saturated).
        far: Whether no rounding does it: each channel is scaled by much, and by little else.
    """

    code: Code
    channels: Ranges
    explained: float
    error: float
    size: float
    pooled: bool = False
    detail: str = ""
    often: float = 0.0
    far: bool = False


def ratio(part: Float | float, whole: Float | float) -> Float:
    """Part over whole, 0 where the whole is 0."""
    whole = np.asarray(whole, np.float64)
    return np.asarray(np.divide(part, whole, out=np.zeros_like(whole), where=whole > 0))


def each(
    code: Code,
    chosen: Mask,
    explained: Float,
    error: Float,
    size: Float,
    detail: str = "",
    *,
    far: bool = False,
) -> Iterator[Defect]:
    """Yield one record for the channels that have a defect, with the median of their figures."""
    channels = np.flatnonzero(chosen)
    if len(channels):
        yield Defect(
            code=code,
            channels=as_ranges(channels),
            explained=float(np.median(explained[channels])),
            error=float(np.median(error[channels])),
            size=float(np.median(size[channels])),
            detail=detail,
            far=far,
        )
