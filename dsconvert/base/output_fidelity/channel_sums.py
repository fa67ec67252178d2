"""Sums over the channels of two outputs, gathered batch by batch in bounded memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..predictor import Array

Float = NDArray[np.float64]
Mask = NDArray[np.bool_]

_AT_ONCE = 1 << 20
"""Values that are turned to float64 at once."""
_KEPT = 1 << 19
"""Values of each side that are kept for a closer look."""
_FEWEST_KEPT = 2
"""Samples that are kept however large they are."""


class ChannelSums:
    """Statistics of every channel of a reference r and of another model's output y.

    Where r is not finite and y is the same, for instance −∞ for a masked score, the value is left
    out. Everything is a mean over samples and positions, in float64, and has the shape (C,).

    Args:
        channels: C.

    Example:
        >>> sums = ChannelSums(2)
        >>> sums.add(np.array([[1.0, 10.0], [3.0, 30.0]]), np.array([[1.0, 10.0], [3.0, 26.0]]))
        >>> sums.noise
        array([0., 8.])
    """

    def __init__(self, channels: int) -> None:
        zeros = np.zeros(channels)
        self.count = zeros.copy()
        self.not_finite = zeros.copy()
        self.low_r, self.high_r = zeros + np.inf, zeros - np.inf
        self.low_y, self.high_y = zeros + np.inf, zeros - np.inf
        self._pivot: Float | None = None
        self._r, self._y, self._rr = zeros.copy(), zeros.copy(), zeros.copy()
        self._yy, self._ry, self._ee = zeros.copy(), zeros.copy(), zeros.copy()
        self._kept: list[tuple[Array, Array]] = []
        self._room = _KEPT
        self.samples = 0
        self._changed: Float | None = None

    def add(self, reference: Array, other: Array, fed: Array | None = None) -> None:
        """Add a batch of both, (n, ..., C).

        Args:
            reference: r.
            other: y.
            fed: What the model was fed, x, where that has the same shape: see `changed`.

        Raises:
            ValueError: If the shapes differ or have another number of channels.
        """
        if reference.shape != other.shape or reference.shape[-1:] != self.count.shape:
            raise ValueError(f"shapes {reference.shape} and {other.shape}, {len(self.count)} wide")
        self._keep(reference, other)
        self.samples += len(reference)
        channels = reference.shape[-1]
        r, y = reference.reshape(-1, channels), other.reshape(-1, channels)
        step = max(1, _AT_ONCE // channels)
        for start in range(0, len(r), step):
            rows = slice(start, start + step)
            self._add(np.asarray(r[rows], np.float64), np.asarray(y[rows], np.float64))
        if fed is not None and fed.shape == reference.shape:
            gap = np.asarray(r, np.float64) - fed.reshape(-1, channels)
            gap[~np.isfinite(gap)] = 0.0
            before = 0.0 if self._changed is None else self._changed
            self._changed = before + (gap * gap).sum(axis=0)

    def _add(self, r: Float, y: Float) -> None:
        """Add rows, (n, C)."""
        good = np.isfinite(r) & np.isfinite(y)
        if not good.all():
            self.not_finite += (~good & (r != y)).sum(axis=0)
            r, y = np.where(good, r, np.nan), np.where(good, y, np.nan)
            low, high, total = np.nanmin, np.nanmax, np.nansum
            empty = ~good.any(axis=0)
            r, y = (np.where(empty, 0.0, a) for a in (r, y))  # no channel of nothing but NaN
        else:
            low, high, total = np.min, np.max, np.sum
        self.count += good.sum(axis=0)
        self.low_r = np.minimum(self.low_r, low(r, axis=0))
        self.high_r = np.maximum(self.high_r, high(r, axis=0))
        self.low_y = np.minimum(self.low_y, low(y, axis=0))
        self.high_y = np.maximum(self.high_y, high(y, axis=0))
        if self._pivot is None:
            self._pivot = total(r, axis=0) / np.maximum(good.sum(axis=0), 1)
        error = y - r
        r, y = r - self._pivot, y - self._pivot
        self._r += total(r, axis=0)
        self._y += total(y, axis=0)
        self._rr += total(r * r, axis=0)
        self._yy += total(y * y, axis=0)
        self._ry += total(r * y, axis=0)
        self._ee += total(error * error, axis=0)

    def _keep(self, reference: Array, other: Array) -> None:
        size = max(1, reference[:1].size)
        have = sum(len(r) for r, _ in self._kept)
        wanted = max(self._room // size, _FEWEST_KEPT - have, 0)
        if wanted:
            pair = (np.array(reference[:wanted]), np.array(other[:wanted]))
            self._kept.append(pair)
            self._room -= pair[0].size

    @property
    def kept(self) -> tuple[Float, Float]:
        """The first samples of both, (n, ..., C), for a closer look; zero where not finite."""
        r, y = (
            np.asarray(np.concatenate(parts), np.float64) for parts in zip(*self._kept, strict=True)
        )
        good = np.isfinite(r) & np.isfinite(y)
        return np.where(good, r, 0.0), np.where(good, y, 0.0)

    @property
    def mean_r(self) -> Float:
        """E r."""
        return self._mean(self._r) + self._about

    @property
    def mean_y(self) -> Float:
        """E y."""
        return self._mean(self._y) + self._about

    @property
    def var_r(self) -> Float:
        """E (r − E r)²."""
        return np.maximum(self._mean(self._rr) - self._mean(self._r) ** 2, 0.0)

    @property
    def var_y(self) -> Float:
        """E (y − E y)²."""
        return np.maximum(self._mean(self._yy) - self._mean(self._y) ** 2, 0.0)

    @property
    def covariance(self) -> Float:
        """E (r − E r)(y − E y)."""
        return self._mean(self._ry) - self._mean(self._r) * self._mean(self._y)

    @property
    def power(self) -> Float:
        """E r²."""
        return self.var_r + self.mean_r**2

    @property
    def noise(self) -> Float:
        """E (y − r)²."""
        return self._mean(self._ee)

    @property
    def changed(self) -> Float | None:
        """E (r − x)²; None where there is no x."""
        return None if self._changed is None else self._mean(self._changed)

    @property
    def shift(self) -> Float:
        """E (y − r)."""
        return self._mean(self._y) - self._mean(self._r)

    @property
    def peak(self) -> Float:
        """The largest |r|; 0 where there is no value."""
        found: Float = np.maximum(np.abs(self.low_r), np.abs(self.high_r))
        return np.where(np.isfinite(found), found, 0.0)

    @property
    def _about(self) -> Float:
        return np.zeros_like(self.count) if self._pivot is None else self._pivot

    def _mean(self, total: Float) -> Float:
        return total / np.maximum(self.count, 1.0)
