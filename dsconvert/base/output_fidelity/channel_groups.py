"""Which channels of an output have the same scale.

An output may hold parts of different units: a detector's boxes in pixels (0 … 640) beside class
scores (0 … 1). An integer tensor has one scale, a step of 640/255 here, in which every score is 0.
Channels whose largest values lie close together can share a scale, others cannot.
"""

from __future__ import annotations

import math
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
WIDEST = 16.0
"""Between the largest values of a group of coordinates and scores: four bits of eight are left for
the smallest. Many features are a continuum, of which the weakest say little."""
POSITIONS = 16
"""Values of a channel in each sample from which its noise averages out."""
UNIT = 1e-3
"""How far outside of 0 … 1 a probability may lie."""
_SCORE = 0.5
_MANY_OF_VECTOR, _MANY = 32, 128
"""Channels from which they are features rather than coordinates and scores."""

Ranges = tuple[tuple[int, int], ...]
"""Channels as first and last of each run: ((0, 3), (7, 7)) is 0, 1, 2, 3, 7."""


def scale_groups(
    peak: Float, values: float, positions: int, distribution: bool
) -> list[np.ndarray[tuple[int], np.dtype[np.intp]]]:
    """Put channels together that can share a scale.

    Args:
        peak: max |r| of each channel, (C,).
        values: How many values a channel has.
        positions: How many of them in each sample.
        distribution: Whether they are probabilities that sum to one: these are of one scale, rare
            classes included.

    Returns:
        As `groups`.
    """
    if distribution:
        return groups(peak, math.inf)
    if values < FEW:
        return groups(peak, GAP_OF_FEW)
    return groups(peak, GAP, math.inf if are_many(len(peak), positions) else WIDEST)


def are_scores(low: float, high: float) -> bool:
    """Tell whether values are scores: in 0 … 1 and used for half of that.

    A few of them beside many coordinates are what a detector says first, however small they are.

    Args:
        low: The least of them.
        high: The largest.
    """
    return low >= -UNIT and _SCORE <= high <= 1 + UNIT


def are_many(channels: int, positions: int) -> bool:
    """Tell whether so many channels are features rather than coordinates and scores."""
    return channels >= (_MANY_OF_VECTOR if positions < POSITIONS else _MANY)


def groups(
    peak: Float, gap: float = GAP, widest: float = math.inf
) -> list[np.ndarray[tuple[int], np.dtype[np.intp]]]:
    """Put channels together whose largest values lie close together.

    Args:
        peak: max |r| of each channel, (C,).
        gap: How much smaller the next channel's is where another group begins.
        widest: The same for a channel against the largest of its group.

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
    cuts, first = [], 0
    for i in range(1, len(sizes)):
        if sizes[i - 1] > gap * sizes[i] or sizes[first] > widest * sizes[i]:
            cuts.append(i)
            first = i
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


def channels_last(array: Array, axis: int) -> Array:
    """Give the array with its channel axis behind the others, (n, ..., C); (n,) becomes (n, 1)."""
    if array.ndim < 2:
        return array.reshape(-1, 1)
    return np.moveaxis(array, axis, -1)
