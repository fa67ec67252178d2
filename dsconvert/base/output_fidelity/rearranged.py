"""Values of an output at other places: exchanged channels, other samples' outputs, moved images."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from .channel_groups import as_ranges
from .channel_sums import Float, Mask
from .defect import EXPLAINED, FEWEST, STILL, Channels, Defect, each, ratio

CHANNELS = 2048
"""Channels up to which each is compared with each."""
_SAMPLES = 64
_FEATURES = 1 << 14
_SEVERAL = 6.0
_APART = 0.5
"""Least squared distance to the own output, in variances; that of two samples is 2 on average."""
_POSITIONS = 4
"""Sizes of an axis from which being moved along it can be told."""


def swapped(r: Float, y: Float, visible: Mask) -> Iterator[Defect]:
    """Channels that are nearer to another channel of the reference than to their own."""
    channels = r.shape[-1]
    rows = max(FEWEST, (1 << 31) // channels**2)
    flat_r, flat_y = (a.reshape(-1, channels)[:rows] for a in (r, y))
    about = flat_r.mean(axis=0)
    R, Y = flat_r - about, flat_y - about
    count = len(R)
    # E (r_i − y_j)², where r_i = R_i + m_i, y_j = Y_j + m_j and E R = 0.
    apart = about[:, None] - about[None, :]
    gap = (R * R).mean(axis=0)[:, None] + (Y * Y).mean(axis=0)[None, :] - 2 * (R.T @ Y) / count
    gap += apart**2 - 2 * apart * Y.mean(axis=0)[None, :]
    own = np.maximum(np.diag(gap), 0.0)
    variance = R.var(axis=0)
    np.fill_diagonal(gap, np.inf)
    nearest = gap.argmin(axis=1)
    best = np.maximum(gap[np.arange(channels), nearest], 0.0)
    keep = 1 - EXPLAINED
    chosen = visible & (best < keep * own) & (best < keep * variance) & (variance > 0)
    # Several values must say it: 1 for a channel with one large value, n for one of ±1.
    chosen &= ratio(variance**2, (R**4).mean(axis=0)) * count >= _SEVERAL
    # A rare class' one large value is near to whatever else is large there: exchanged are channels
    # that have each other's values.
    for _ in range(channels):
        closed = chosen & chosen[nearest]
        if (closed == chosen).all():
            break
        chosen = closed
    told = ", ".join(f"{j} holds {i}" for i, j in enumerate(nearest) if chosen[i])
    error = ratio(np.sqrt(own), np.sqrt(variance))
    share = np.full(channels, float(chosen.mean()))
    yield from each("swapped", chosen, 1 - ratio(best, own), error, share, told[:80])


def mixed(group: Channels, r: Float, y: Float) -> Iterator[Defect]:
    """Samples that got each other's outputs, or all the same one.

    Args:
        group: Channels of like scale.
        r: Their reference, (n, ..., C).
        y: What they are.
    """
    count = min(len(r), _SAMPLES)
    if count < _POSITIONS:
        return
    R, Y = (a[:count].reshape(count, -1) for a in (r, y))
    R, Y = (a[:, :: max(1, a.shape[1] // _FEATURES)] for a in (R, Y))
    own = float(((R - Y) ** 2).mean())
    between = float(R.var(axis=0).mean())
    ranges = as_ranges(group)
    if own <= 0 or between <= 1e-12 * float((R * R).mean()):
        return
    error = math.sqrt(own / between)
    if float(Y.var(axis=0).mean()) <= STILL**2 * between:
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
    if R.shape[1] >= FEWEST:
        own_each = np.diag(gap).copy()
        np.fill_diagonal(gap, np.inf)
        nearest = gap.min(axis=0)
        foreign = nearest < (1 - EXPLAINED) * np.minimum(own_each, Y.var(axis=0).mean())
        # Where outputs are few numbers' doing, some other sample is near to any of them: of others
        # are outputs that are as far from their own as samples are from each other.
        if foreign.mean() >= 0.5 and own_each[foreign].mean() >= _APART * between:
            yield Defect(
                code="samples-mixed",
                channels=ranges,
                explained=float(1 - nearest[foreign].sum() / own_each[foreign].sum()),
                error=error,
                size=float(foreign.mean()),
                detail="samples have the outputs of others",
            )


def moved(r: Float, y: Float, visible: Mask) -> Iterator[Defect]:
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
    visible: Mask,
    axis: int,
    step: int,
) -> Iterator[Defect]:
    """Yield one record if y is much nearer to the changed reference than to the reference."""
    axes = tuple(range(y.ndim - 1))
    own = ((y - reference) ** 2).mean(axis=axes)
    left = ((y - changed) ** 2).mean(axis=axes)
    keep = 1 - EXPLAINED
    chosen = visible & (left < keep * own) & (left < keep * variance)
    error = ratio(np.sqrt(own), np.sqrt(variance))
    told = (
        "height and width exchanged"
        if axis == 0
        else f"mirrored along axis {axis}"
        if step == 0
        else f"moved by {step:+d} along axis {axis}"
    )
    size = np.full(len(own), float(abs(step)))
    yield from each("moved", chosen, 1 - ratio(left, own), error, size, told)
