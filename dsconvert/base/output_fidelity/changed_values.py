"""Values of an output that were changed: constant, shifted, scaled, inverted or cut off ones."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from .channel_groups import as_ranges
from .channel_sums import ChannelSums, Float, Mask
from .defect import EXPLAINED, FEWEST, STILL, Channels, Defect, each, ratio

_STEADY = 1e-6
"""Standard deviation over mean from which the reference changes."""
_INVERTED = -0.3
"""Slope below which an output is called inverted."""
_FAR, _CERTAIN = 0.1, 0.9
"""Distance of a channel's slope from 1, and share of the error that it must be."""
_PART = 0.25
"""Share of the error power that an offset of all channels must be where others have errors too."""
_OFTEN = 4
"""Values beyond a limit from which a range is cut off: calibration has not seen all."""
_ALIKE = 4
"""Channels from which a common offset can be told from their own."""


def constant(sums: ChannelSums, grouped: Sequence[Channels]) -> Iterator[Defect]:
    """Channels that vary in the reference, by a share of their group's range, and are constant."""
    spread = sums.high_r - sums.low_r
    for group in grouped:
        range_r = float((sums.high_r[group]).max() - min(0.0, sums.low_r[group].min()))
        share = np.zeros_like(spread)
        share[group] = ratio(spread[group], np.full(len(group), range_r))
        flat = still(sums) & (sums.count >= FEWEST) & (share > 0)
        error = ratio(np.sqrt(sums.noise), np.sqrt(sums.var_r))
        for large in (True, False):  # those that vary much apart from those that hardly do
            chosen = flat & ((share >= 1 / 32) == large)
            yield from each("constant", chosen, np.ones_like(share), error, share)


def still(sums: ChannelSums) -> Mask:
    """Channels that change in the reference only."""
    return (sums.var_y <= STILL**2 * sums.var_r) & (sums.var_r > _STEADY**2 * sums.power)


def affine(sums: ChannelSums, group: Channels) -> Iterator[Defect]:
    """Yield one offset, or one slope and offset, for all channels of a group."""
    count = sums.count[group]
    total = float(count.sum())
    if total < FEWEST:
        return
    weight = count / total
    mean_r, mean_y = weight @ sums.mean_r[group], weight @ sums.mean_y[group]
    var_r = weight @ (sums.var_r[group] + (sums.mean_r[group] - mean_r) ** 2)
    both = weight @ (
        sums.covariance[group] + (sums.mean_r[group] - mean_r) * (sums.mean_y[group] - mean_y)
    )
    var_y = weight @ (sums.var_y[group] + (sums.mean_y[group] - mean_y) ** 2)
    noise = float(weight @ sums.noise[group])
    if noise <= 0 or var_r <= 0:
        return
    error = math.sqrt(noise / var_r)
    shift = float(mean_y - mean_r)
    slope = float(both / var_r)
    left = max(float(var_y - both * slope), 0.0)
    ranges = as_ranges(group)
    by_shift, by_both = shift**2 / noise, 1 - left / noise
    alike = by_shift >= _PART and _alike(sums.shift[group], math.sqrt(var_r))
    if by_shift >= EXPLAINED or alike:
        yield Defect(
            code="offset",
            channels=ranges,
            explained=by_shift,
            error=error,
            size=shift / math.sqrt(var_r),
            pooled=True,
        )
    elif by_both >= EXPLAINED or slope < _INVERTED:
        yield Defect(
            code="inverted" if slope < _INVERTED else "scale",
            channels=ranges,
            explained=by_both,
            error=error,
            size=slope,
            pooled=True,
            far=slope >= _INVERTED and bool(_is_far(np.array(slope), np.array(by_both))),
        )


def _alike(shift: Float, size: float) -> bool:
    """Tell whether all channels are shifted by about the same, and by much of the output's size.

    A sound file's channels have offsets of their own: 0.05 of the size and three standard errors of
    their mean were not seen together.
    """
    if len(shift) < _ALIKE:
        return False
    mean, error = abs(float(shift.mean())), float(shift.std(ddof=1)) / math.sqrt(len(shift))
    return mean >= 0.1 * size and mean >= 3 * error


def affine_each(sums: ChannelSums, visible: Mask) -> Iterator[Defect]:
    """Yield an offset, or a slope and offset, of each channel's own."""
    noise, var_r = sums.noise, sums.var_r
    error = ratio(np.sqrt(noise), np.sqrt(var_r))
    slope = ratio(sums.covariance, var_r)
    left = np.maximum(sums.var_y - slope * sums.covariance, 0.0)
    by_shift, by_both = ratio(sums.shift**2, noise), 1 - ratio(left, noise)
    enough = (sums.count >= FEWEST) & visible
    shifted = enough & (by_shift >= EXPLAINED)
    size = ratio(sums.shift, np.sqrt(var_r))
    yield from each("offset", shifted, by_shift, error, np.abs(size))
    fitted = enough & ~shifted & (by_both >= EXPLAINED) & (var_r > 1e-12 * sums.power)
    yield from each("inverted", fitted & (slope < _INVERTED), by_both, error, slope)
    scaled = fitted & (slope >= _INVERTED)
    far = _is_far(slope, by_both)
    for chosen, certain in ((scaled & far, True), (scaled & ~far, False)):
        yield from each("scale", chosen, by_both, error, slope, far=certain)


def _is_far(slope: Float, explained: Float) -> Mask:
    """Tell which channels are scaled by so much, and by little else, that no rounding does it.

    The slopes of sound int8 files were within 0.015 of 1.
    """
    return (np.abs(slope - 1) >= _FAR) & (explained >= _CERTAIN)


def saturated(sums: ChannelSums, group: Channels, r: Float, y: Float) -> Iterator[Defect]:
    """Values of a group beyond the largest, or the least, that the other model ever gives."""
    noise = float(((r - y) ** 2).sum())
    spread = math.sqrt(float(r.var()))
    if noise <= 0 or spread <= 0:
        return
    error = math.sqrt(noise / r.size) / spread
    low, high = float(sums.low_r[group].min()), float(sums.high_r[group].max())
    for sign, name in ((1, "above"), (-1, "below")):
        limit = float(sums.high_y[group].max() if sign > 0 else -sums.low_y[group].min())
        lost = ((high if sign > 0 else -low) - limit) / (high - low)
        beyond = sign * r > limit + 0.02 * (high - low)
        share = float(((r - y)[beyond] ** 2).sum()) / noise
        if lost > 0.05 and share >= EXPLAINED and np.count_nonzero(beyond) >= _OFTEN:
            yield Defect(
                code="saturated",
                channels=as_ranges(group),
                explained=share,
                error=error,
                size=lost,
                pooled=True,
                detail=f"{name} {sign * limit:.3g}",
                often=float(beyond.mean()),
            )


def saturated_each(sums: ChannelSums, visible: Mask, r: Float, y: Float) -> Iterator[Defect]:
    """Yield the same of each channel on its own."""
    axes = tuple(range(r.ndim - 1))
    squares = (r - y) ** 2
    noise = squares.sum(axis=axes)
    error = ratio(np.sqrt(sums.noise), np.sqrt(sums.var_r))
    spread = np.maximum(sums.high_r - sums.low_r, 1e-300)
    for sign, name in ((1, "above"), (-1, "below")):
        limit = sums.high_y if sign > 0 else -sums.low_y
        lost = ((sums.high_r if sign > 0 else -sums.low_r) - limit) / spread
        beyond = sign * r > limit + 0.02 * spread
        share = ratio(np.where(beyond, squares, 0.0).sum(axis=axes), noise)
        often = beyond.mean(axis=axes)
        chosen = visible & (lost > 0.05) & (share >= EXPLAINED) & (often * sums.count >= _OFTEN)
        yield from each("saturated", chosen, share, error, lost, name)
