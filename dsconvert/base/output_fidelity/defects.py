"""Traces of known defects: what was done to an output, found by undoing it.

A sound file's error is noise, and no simple change makes it smaller. Where exchanging two
channels, moving an image by a cell or removing an offset takes away three quarters of the error,
that change is what the file does wrong, even if its SQNR is high: RGB and BGR of a photograph are
20 dB apart.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec
import numpy as np

from .channel_groups import Ranges, as_ranges
from .channel_sums import ChannelSums, Float

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
_VISIBLE = 0.02
"""Errors below that share of a channel's standard deviation are not looked at."""
_STILL = 0.05
"""Share of the reference's standard deviation up to which a channel hardly changes."""
_STEADY = 1e-6
"""Standard deviation over mean from which the reference changes."""
_INVERTED = -0.3
"""Slope below which an output is called inverted."""
_FEWEST = 8
"""Values of a channel from which its statistics say something."""
_ALIKE = 4
"""Channels from which a common offset can be told from their own."""
_CHANNELS = 2048
"""Channels up to which each is compared with each."""
_SAMPLES = 64
_FEATURES = 1 << 14
_POSITIONS = 4
"""Sizes of an axis from which being moved along it can be told."""


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
    """

    code: Code
    channels: Ranges
    explained: float
    error: float
    size: float
    pooled: bool = False
    detail: str = ""


def find(sums: ChannelSums, grouped: Sequence[Channels]) -> tuple[Defect, ...]:
    """Look for all known defects.

    Args:
        sums: Of a reference and another model's output.
        grouped: Its channels, by their scale.
    """
    if not grouped or not sums.samples:
        return ()
    r, y = sums.kept
    whole = r.shape[-1]
    visible = np.sqrt(sums.noise) > _VISIBLE * np.sqrt(sums.var_r)
    if not visible.any():
        return ()
    found = [*_constant(sums, grouped), *_mixed(sums, grouped, r, y)]
    visible &= ~_still(sums)  # what is constant is told as that
    for group in grouped:
        if visible[group].any():
            found += _affine(sums, group)
            found += _saturated(sums, group, r[..., group], y[..., group])
    if sums.count.max() >= _FEWEST:
        found += _affine_each(sums, visible)
        found += _saturated_each(sums, visible, r, y)
        if 1 < whole <= _CHANNELS:
            found += _swapped(r, y, visible)
        found += _moved(r, y, visible)
    return tuple(found)


def _ratio(part: Float | float, whole: Float | float) -> Float:
    """Part over whole, 0 where the whole is 0."""
    whole = np.asarray(whole, np.float64)
    return np.asarray(np.divide(part, whole, out=np.zeros_like(whole), where=whole > 0))


def _each(
    code: Code,
    chosen: Float,
    explained: Float,
    error: Float,
    size: Float,
    detail: str = "",
) -> Iterator[Defect]:
    """One record for the channels that have a defect, with the median of their figures."""
    channels = np.flatnonzero(chosen)
    if len(channels):
        yield Defect(
            code=code,
            channels=as_ranges(channels),
            explained=float(np.median(explained[channels])),
            error=float(np.median(error[channels])),
            size=float(np.median(size[channels])),
            detail=detail,
        )


def _constant(sums: ChannelSums, grouped: Sequence[Channels]) -> Iterator[Defect]:
    """Channels that vary in the reference, by a share of their group's range, and are constant."""
    spread = sums.high_r - sums.low_r
    for group in grouped:
        range_r = float((sums.high_r[group]).max() - min(0.0, sums.low_r[group].min()))
        share = np.zeros_like(spread)
        share[group] = _ratio(spread[group], np.full(len(group), range_r))
        still = _still(sums) & (sums.count >= _FEWEST) & (share > 0)
        error = _ratio(np.sqrt(sums.noise), np.sqrt(sums.var_r))
        for large in (True, False):  # those that vary much apart from those that hardly do
            chosen = still & ((share >= 1 / 32) == large)
            yield from _each("constant", chosen, np.ones_like(share), error, share)


def _still(sums: ChannelSums) -> Float:
    """Channels that change in the reference only."""
    return (sums.var_y <= _STILL**2 * sums.var_r) & (sums.var_r > _STEADY**2 * sums.power)


def _affine(sums: ChannelSums, group: Channels) -> Iterator[Defect]:
    """One offset, or one slope and offset, for all channels of a group."""
    count = sums.count[group]
    total = float(count.sum())
    if total < _FEWEST:
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
    if by_shift >= EXPLAINED or _alike(sums.shift[group], math.sqrt(var_r)):
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
        )


def _alike(shift: Float, size: float) -> bool:
    """Whether all channels are shifted by about the same, and by much of the output's size.

    A sound file's channels have offsets of their own: 0.05 of the size and three standard errors of
    their mean were not seen together.
    """
    if len(shift) < _ALIKE:
        return False
    mean, error = abs(float(shift.mean())), float(shift.std(ddof=1)) / math.sqrt(len(shift))
    return mean >= 0.1 * size and mean >= 3 * error


def _affine_each(sums: ChannelSums, visible: Float) -> Iterator[Defect]:
    """An offset, or a slope and offset, of each channel's own."""
    noise, var_r = sums.noise, sums.var_r
    error = _ratio(np.sqrt(noise), np.sqrt(var_r))
    slope = _ratio(sums.covariance, var_r)
    left = np.maximum(sums.var_y - slope * sums.covariance, 0.0)
    by_shift, by_both = _ratio(sums.shift**2, noise), 1 - _ratio(left, noise)
    enough = (sums.count >= _FEWEST) & visible
    shifted = enough & (by_shift >= EXPLAINED)
    size = _ratio(sums.shift, np.sqrt(var_r))
    yield from _each("offset", shifted, by_shift, error, np.abs(size))
    fitted = enough & ~shifted & (by_both >= EXPLAINED) & (var_r > 1e-12 * sums.power)
    yield from _each("inverted", fitted & (slope < _INVERTED), by_both, error, slope)
    yield from _each("scale", fitted & (slope >= _INVERTED), by_both, error, slope)


def _saturated(sums: ChannelSums, group: Channels, r: Float, y: Float) -> Iterator[Defect]:
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
        if lost > 0.05 and share >= EXPLAINED:
            yield Defect(
                code="saturated",
                channels=as_ranges(group),
                explained=share,
                error=error,
                size=lost,
                pooled=True,
                detail=f"{name} {sign * limit:.3g}",
            )


def _saturated_each(sums: ChannelSums, visible: Float, r: Float, y: Float) -> Iterator[Defect]:
    """The same of each channel on its own."""
    axes = tuple(range(r.ndim - 1))
    squares = (r - y) ** 2
    noise = squares.sum(axis=axes)
    error = _ratio(np.sqrt(sums.noise), np.sqrt(sums.var_r))
    spread = np.maximum(sums.high_r - sums.low_r, 1e-300)
    for sign, name in ((1, "above"), (-1, "below")):
        limit = sums.high_y if sign > 0 else -sums.low_y
        lost = ((sums.high_r if sign > 0 else -sums.low_r) - limit) / spread
        beyond = sign * r > limit + 0.02 * spread
        share = _ratio(np.where(beyond, squares, 0.0).sum(axis=axes), noise)
        often = beyond.mean(axis=axes)
        chosen = visible & (lost > 0.05) & (share >= EXPLAINED) & (often * sums.count >= 4)
        yield from _each("saturated", chosen, share, error, lost, name)


def _swapped(r: Float, y: Float, visible: Float) -> Iterator[Defect]:
    """Channels that are nearer to another channel of the reference than to their own."""
    channels = r.shape[-1]
    rows = max(_FEWEST, (1 << 31) // channels**2)
    flat_r, flat_y = (a.reshape(-1, channels)[:rows] for a in (r, y))
    about = flat_r.mean(axis=0)
    R, Y = flat_r - about, flat_y - about
    mean, count = about, len(R)
    # E (r_i − y_j)², with r and y counted from the mean of their own channel of the reference.
    apart = mean[:, None] - mean[None, :]
    R1, Y1 = R.mean(axis=0), Y.mean(axis=0)
    gap = (R * R).mean(axis=0)[:, None] + (Y * Y).mean(axis=0)[None, :] - 2 * (R.T @ Y) / count
    gap += apart**2 + 2 * apart * (R1[:, None] - Y1[None, :])
    own = np.maximum(np.diag(gap), 0.0)
    variance = R.var(axis=0)
    np.fill_diagonal(gap, np.inf)
    nearest = gap.argmin(axis=1)
    best = np.maximum(gap[np.arange(channels), nearest], 0.0)
    keep = 1 - EXPLAINED
    chosen = visible & (best < keep * own) & (best < keep * variance) & (variance > 0)
    chosen &= count >= _FEWEST
    told = ", ".join(f"{j} holds {i}" for i, j in enumerate(nearest) if chosen[i])
    error = _ratio(np.sqrt(own), np.sqrt(variance))
    share = np.full(channels, float(chosen.mean()))
    yield from _each("swapped", chosen, 1 - _ratio(best, own), error, share, told[:80])


def _mixed(sums: ChannelSums, grouped: Sequence[Channels], r: Float, y: Float) -> Iterator[Defect]:
    """Samples that got each other's outputs, or all the same one."""
    count = min(len(r), _SAMPLES)
    if count < _POSITIONS:
        return
    size = np.full(r.shape[-1], np.inf)
    for group in grouped:
        size[group] = math.sqrt(float(sums.power[group].mean()))
    R, Y = ((a[:count] / size).reshape(count, -1) for a in (r, y))
    R, Y = (a[:, :: max(1, a.shape[1] // _FEATURES)] for a in (R, Y))
    own = float(((R - Y) ** 2).mean())
    between = float(R.var(axis=0).mean())
    ranges = ((0, r.shape[-1] - 1),)
    if own <= 0 or between <= 1e-12:
        return
    error = math.sqrt(own / between)
    if float(Y.var(axis=0).mean()) <= _STILL**2 * between:
        yield Defect(
            code="same-for-all-samples", channels=ranges, explained=1.0, error=error, size=1.0
        )
        return
    gap = (R * R).mean(axis=1)[:, None] + (Y * Y).mean(axis=1)[None, :] - 2 * (R @ Y.T) / R.shape[1]
    gap = np.maximum(gap, 0.0)
    turns = [float(np.mean([gap[(i + k) % count, i] for i in range(count)])) for k in range(count)]
    best = int(np.argmin(turns))
    if best and turns[best] < (1 - EXPLAINED) * turns[0]:
        yield Defect(
            code="samples-mixed",
            channels=ranges,
            explained=1 - turns[best] / turns[0],
            error=error,
            size=1.0,
            detail=f"each sample has the outputs of the one {best} further",
        )
        return
    if R.shape[1] >= _FEWEST:
        own_each = np.diag(gap).copy()
        np.fill_diagonal(gap, np.inf)
        nearest = gap.min(axis=0)
        foreign = nearest < (1 - EXPLAINED) * own_each
        if foreign.mean() >= 0.5:
            yield Defect(
                code="samples-mixed",
                channels=ranges,
                explained=float(1 - nearest[foreign].sum() / own_each[foreign].sum()),
                error=error,
                size=float(foreign.mean()),
                detail="samples have the outputs of others",
            )


def _moved(r: Float, y: Float, visible: Float) -> Iterator[Defect]:
    """Channels whose positions are moved by a cell, mirrored, or have their axes exchanged."""
    positions = range(1, r.ndim - 1)
    axes = tuple(range(r.ndim - 1))
    variance = r.var(axis=axes)
    for axis in positions:
        size = r.shape[axis]
        if size < _POSITIONS:
            continue
        side = math.isqrt(size)
        steps = [1, -1, *((side, -side) if r.ndim == 3 and side * side == size > 9 else ())]
        for step in steps:
            ours = np.take(y, range(max(step, 0), size + min(step, 0)), axis)
            theirs = np.take(r, range(max(-step, 0), size + min(-step, 0)), axis)
            here = np.take(r, range(max(step, 0), size + min(step, 0)), axis)
            yield from _undone(ours, theirs, here, variance, visible, axis, step)
        yield from _undone(y, np.flip(r, axis), r, variance, visible, axis, 0)
    if r.ndim == 4 and r.shape[1] == r.shape[2] >= _POSITIONS:
        yield from _undone(y, r.swapaxes(1, 2), r, variance, visible, 0, 0)


def _undone(
    y: Float,
    changed: Float,
    reference: Float,
    variance: Float,
    visible: Float,
    axis: int,
    step: int,
) -> Iterator[Defect]:
    """One record if y is much nearer to the changed reference than to the reference."""
    axes = tuple(range(y.ndim - 1))
    own = ((y - reference) ** 2).mean(axis=axes)
    left = ((y - changed) ** 2).mean(axis=axes)
    keep = 1 - EXPLAINED
    chosen = visible & (left < keep * own) & (left < keep * variance)
    error = _ratio(np.sqrt(own), np.sqrt(variance))
    told = (
        "height and width are exchanged"
        if axis == 0
        else f"mirrored along axis {axis}"
        if step == 0
        else f"by {step:+d} along axis {axis}"
    )
    size = np.full(len(own), float(abs(step)))
    yield from _each("moved", chosen, 1 - _ratio(left, own), error, size, told)
