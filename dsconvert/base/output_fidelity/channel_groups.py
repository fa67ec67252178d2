"""Which axis of an output holds its channels, and which channels have the same scale.

An output may hold parts of different units: a detector's boxes in pixels (0 … 640) beside class
scores (0 … 1). An integer tensor has one scale, a step of 640/255 here, in which every score is 0.
Channels whose largest values lie close together can share a scale, others cannot.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ..predictor import Array
from .channel_sums import Float

GAP = 4.0
"""Between the largest values of two channels that follow each other in size: two bits of eight."""
GAP_OF_FEW = 100.0
"""The same where a channel has few values, whose largest says little of its scale."""
FEW = 8
"""Values of a channel below which they are few."""
_SPREAD, _SPREAD_OF_MANY = 0.4, 1.0
"""How much more the logarithms of sizes must vary along axis 1 than along the last one where axis 1
holds the channels: where it is the shorter axis, and where it is the longer."""
_LONGER = 4
"""How much longer than the last an axis may be that holds the channels: positions are many."""
_LOOKED_AT = 1 << 20

Ranges = tuple[tuple[int, int], ...]
"""Channels as first and last of each run: ((0, 3), (7, 7)) is 0, 1, 2, 3, 7."""


def groups(peak: Float, gap: float = GAP) -> list[np.ndarray[tuple[int], np.dtype[np.intp]]]:
    """Put channels together whose largest values lie close together.

    Args:
        peak: max |r| of each channel, (C,).
        gap: How much smaller the next channel's is where another group begins.

    Returns:
        The channels of each group in ascending order, the group of the largest values first.
        Channels that are zero everywhere are in none.

    Example:
        >>> groups(np.array([640.0, 600.0, 0.9, 0.5]))
        [array([0, 1]), array([2, 3])]
    """
    order = np.argsort(-peak, kind="stable")
    order = order[peak[order] > 0]
    if not len(order):
        return []
    sizes = peak[order]
    cuts = np.flatnonzero(sizes[:-1] > gap * sizes[1:]) + 1
    return [np.sort(part) for part in np.split(order, cuts)]


def as_ranges(channels: Iterable[int]) -> Ranges:
    """Channels as runs.

    Args:
        channels: In ascending order.

    Example:
        >>> as_ranges([0, 1, 2, 7])
        ((0, 2), (7, 7))
    """
    runs: list[list[int]] = []
    for channel in map(int, channels):
        if runs and channel == runs[-1][1] + 1:
            runs[-1][1] = channel
        else:
            runs.append([channel, channel])
    return tuple((first, last) for first, last in runs)


def named(ranges: Ranges, most: int = 4) -> str:
    """Channels as people write them: "channels 0–3, 7", at most so many runs.

    Example:
        >>> named(((0, 3), (7, 7)))
        'channels 0–3, 7'
        >>> named(((7, 7),))
        'channel 7'
    """
    runs = [str(first) if first == last else f"{first}–{last}" for first, last in ranges[:most]]
    single = len(ranges) == 1 and ranges[0][0] == ranges[0][1]
    more = "" if len(ranges) <= most else ", …"
    return f"channel{'' if single else 's'} {', '.join(runs)}{more}"


def channel_axis(reference: Array) -> int:
    """Find the axis of an output that holds its channels: classes, coordinates, colours.

    Of (n, a) it is the last. Of more axes it is the last, or axis 1 as ONNX has it: (n, C, H, W) of
    an image, told by its sizes, and (n, 84, 8400) of a detector, told by its sizes and by values
    whose sizes differ more along axis 1.

    Args:
        reference: (n, ...).
    """
    last = reference.ndim - 1
    if reference.ndim < 3:
        return last
    sizes = reference.shape[1:]
    if 1 in (sizes[0], sizes[-1]):
        return last if sizes[-1] == 1 else 1
    if len(sizes) == 3:
        if sizes[0] != sizes[2] and sizes[1] in (sizes[0], sizes[2]):
            return 1 if sizes[1] == sizes[2] else last
        return 1 if sizes[0] < min(sizes[1:]) else last
    more = _spread(reference, 1) - _spread(reference, last)
    if sizes[0] > _LONGER * sizes[-1]:
        return last
    return 1 if more > (_SPREAD if sizes[0] < sizes[-1] else _SPREAD_OF_MANY) else last


def channels_last(array: Array, axis: int) -> Array:
    """Give the array with its channel axis behind the others, (n, ..., C); (n,) becomes (n, 1)."""
    if array.ndim < 2:
        return array.reshape(-1, 1)
    return np.moveaxis(array, axis, -1)


def _spread(reference: Array, axis: int) -> float:
    """Standard deviation of log max |r| along an axis; 0 where it has one size."""
    few = reference[: max(1, _LOOKED_AT // max(1, reference[:1].size))]
    values = np.abs(np.where(np.isfinite(few), few, 0.0), dtype=np.float64)
    peaks = values.max(axis=tuple(i for i in range(values.ndim) if i != axis), initial=0.0)
    peaks = peaks[peaks > peaks.max(initial=0.0) * 1e-6]
    return float(np.std(np.log(peaks))) if len(peaks) > 1 else 0.0
