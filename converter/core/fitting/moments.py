"""First and second moments of patches and outputs, streamed in bounded memory.

Everything the fit needs to know of the data is here: with x a patch of the *actual* input
(C·k² values) and y the output to aim at (N values), the moments E x, E y, Cov(x, x), Cov(x, y)
and Var(y) determine E‖y − ŷ‖² for every linear ŷ of x (Zhang et al., arXiv:1505.06798, for the
asymmetric case in which x has drifted and y has not).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dsconvert.base.predictor import Array

from ..types import Float, as_float
from .overflow import refuse_overflow
from .quadratic import Dense, Quadratic, Rows


@dataclass(frozen=True)
class Statistics:
    """Centred moments over patches.

    Attributes:
        cov: Cov(x, x), (D, D) with D = C·k², channel by channel, the k² taps of one together.
        cross: Cov(x, y), (D, N).
        mean_x: (D,).
        mean_y: (N,).
        var_y: Var(y), (N,).
        count: Number of patches.
        rows: Of fewer than D/2 patches F (P, D) in float32, with FᵀF = Cov(x, x); else None.
    """

    cov: Float
    cross: Float
    mean_x: Float
    mean_y: Float
    var_y: Float
    count: int
    rows: Array | None = None

    @cached_property
    def single(self) -> Quadratic:
        """The covariance for products in float32: all fits to these moments take this one."""
        return Dense(self.cov.astype(np.float32)) if self.rows is None else Rows(self.rows)

    def of_channels(self, taps: int) -> Float:
        """Return the covariance of the input channels, (C, C), a mean over the k² taps."""
        cov = self.cov.reshape(len(self.cov) // taps, taps, -1, taps)
        return as_float(sum(cov[:, tap, :, tap] for tap in range(taps)) / taps)

    def explained(self, kernel: Float) -> Float:
        """E(y − E y − Wᵀ(x − E x))² for each output, (N,), of a kernel (D, N)."""
        quadratic = np.einsum("dn,dn->n", kernel, self.cov @ kernel)
        return as_float(self.var_y - 2 * np.einsum("dn,dn->n", kernel, self.cross) + quadratic)

    def relative_error(self, kernel: Float, missed: float | None = None) -> float:
        """‖y − ŷ‖ / ‖y − E y‖ of a kernel (D, N) whose bias is right.

        Args:
            kernel: Ŵ.
            missed: Σ_n E(y_n − ŷ_n)², where that is known already.
        """
        total = float(self.var_y.sum())
        error = max(float(self.explained(kernel).sum()) if missed is None else missed, 0.0)
        return float(np.sqrt(error / total)) if total > 0 else 0.0

    def output_variance(self, kernel: Float) -> Float:
        """Var(ŷ) of a kernel (D, N), (N,)."""
        return as_float(np.maximum(np.einsum("dn,dn->n", kernel, self.cov @ kernel), 0.0))


_ROWS = 256
"""Rows of a covariance that are worked on at once."""


class Moments:
    """Accumulates `Statistics` batch by batch.

    Products are formed in float32 around a provisional mean (the first batch's), which keeps
    cancellation small, and summed in float64.

    Args:
        features: D.
        outputs: N.
    """

    def __init__(self, features: int, outputs: int) -> None:
        self.count = 0
        self._origin_x: Array | None = None
        self._origin_y: Array | None = None
        self._xx: Float | None = np.zeros((features, features))
        self._xy = np.zeros((features, outputs))
        self._x = np.zeros(features)
        self._y = np.zeros(outputs)
        self._yy = np.zeros(outputs)
        self._few: list[Array] | None = []  # the patches, as long as they are few
        self._nan = False

    def update(self, x: Array, y: Array) -> None:
        """Add patches x (P, D) and the outputs to aim at y (P, N)."""
        if self._xx is None:
            raise ValueError("the moments were returned already")
        if self._origin_x is None or self._origin_y is None:
            self._origin_x = x.mean(axis=0, dtype=np.float64).astype(np.float32)
            self._origin_y = y.mean(axis=0, dtype=np.float64).astype(np.float32)
        given = (x, y)
        x = x.astype(np.float32, copy=False) - self._origin_x
        y = y.astype(np.float32, copy=False) - self._origin_y
        self.count += len(x)
        if self._few is not None:
            self._few = [*self._few, x] if 2 * self.count < x.shape[1] else None
        with np.errstate(over="ignore", invalid="ignore"):  # `statistics` says so
            self._xx += x.T @ x
            self._xy += x.T @ y
            self._x += x.sum(axis=0, dtype=np.float64)
            self._y += y.sum(axis=0, dtype=np.float64)
            self._yy += np.einsum("pn,pn->n", y, y, dtype=np.float64)
        sums = (self._x, self._y)  # to look at them is cheap
        if not self._nan and not all(np.isfinite(values).all() for values in sums):
            self._nan = any(bool(np.isnan(values).any()) for values in given)

    def statistics(self) -> Statistics:
        """Return the moments, once: the sums become the covariance where they lie.

        Of a wide layer they are the largest array there is, and a copy would double it.

        Raises:
            ValueError: If nothing was added, or the moments were returned already.
            InputError: If values were NaN, or their products not finite.
        """
        if self._origin_x is None or self._origin_y is None:
            raise ValueError("no patches were added")
        if self._xx is None:
            raise ValueError("the moments were returned already")
        refuse_overflow(self._xx, nan=self._nan)
        refuse_overflow(self._yy)
        mean_x, mean_y = self._x / self.count, self._y / self.count
        cov, self._xx = self._xx, None
        cov /= self.count
        for first in range(0, len(cov), _ROWS):  # a product with itself: symmetric already
            cov[first : first + _ROWS] -= np.outer(mean_x[first : first + _ROWS], mean_x)
        return Statistics(
            cov=cov,
            cross=self._xy / self.count - np.outer(mean_x, mean_y),
            mean_x=mean_x + as_float(self._origin_x),
            mean_y=mean_y + as_float(self._origin_y),
            var_y=np.maximum(self._yy / self.count - mean_y**2, 0.0),
            count=self.count,
            rows=None if self._few is None else self._rows(mean_x),
        )

    def _rows(self, mean_x: Float) -> Array:
        """Return the patches, (P, D), centred and divided by √P."""
        rows = np.concatenate(self._few or ())
        self._few = None
        rows -= mean_x.astype(np.float32)
        rows /= np.float32(np.sqrt(self.count))
        return rows
