"""The error of a sum of R rank-one terms, as a function of two of its three factors.

Ŵ[c, k, n] = Σ_r p[c, r]·q[k, r]·v[r, n]. With U[(c, k), r] = p[c, r]·q[k, r], the R features Uᵀx
feed the last factor linearly, so the best v for given p and q is one least-squares solve. Put into
the objective of `fit`, this leaves a function of p and q alone (variable projection, Golub and
Pereyra 1973), with A = UᵀCU and B = UᵀG:

    J(p, q) = tr Var(y) − tr(VᵀB),   V = (A + μ·diag A)⁻¹B

The term μ penalises Σ_r Var(u_rᵀx)·‖v_r‖², the sum of the terms' own variances. Without this
penalty the sum is often the small difference of large terms: a CP approximation of a given R need
not have a minimum (de Silva and Lim 2008). Rounding the R channels to 8 bits adds noise in
proportion to the same sum.

With V at its optimum the gradient of J is the partial one: ∂J/∂U = 2·(CU·H − GVᵀ), where
H = VVᵀ with its diagonal multiplied by 1 + μ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dsconvert.base.predictor import Array

from ..types import Float
from .fit import Terms
from .moments import Statistics
from .solves import solve_positive

_WIDE = 512
"""Features, C·k², from which on the descent computes in float32: below, calls take the time."""


@dataclass(frozen=True)
class Point:
    """The objective at some p and q.

    Attributes:
        value: J.
        last: V, (R, N).
        variance: Var(u_rᵀx), (R,).
        moved: (C + λI)·U of each block of input channels, (D, R).
    """

    value: float
    last: Float
    variance: Float
    moved: tuple[Array, ...]


@dataclass(frozen=True)
class _Part:
    """The regularised quadratic of one block of input channels.

    Attributes:
        cov: C without λ, (D, D): the one of the moments, no copy.
        cross: (G + λW)·s, (D, N), in the precision of ``cov``.
        terms: The rest.
    """

    cov: Array
    cross: Array
    terms: Terms

    @classmethod
    def of(cls, stats: Statistics, terms: Terms) -> _Part:
        return cls(stats.cov, terms.cross.reshape(len(stats.cov), -1), terms)

    def in_float32(self) -> _Part:
        return _Part(self.cov.astype(np.float32), self.cross.astype(np.float32), self.terms)

    def features(self, first: Float, taps: Float) -> Array:
        """Return U, (D, R), of this block's own p, in the precision of the moments."""
        first, taps = first.astype(self.cov.dtype), taps.astype(self.cov.dtype)
        return (first[:, None, :] * taps).reshape(len(self.cov), -1)

    def pulled(self, features: Array) -> Array:
        """Return (C + λI)·U."""
        moved = self.cov @ features
        moved += self.cov.dtype.type(self.terms.noise) * features
        return moved


@dataclass(frozen=True)
class CpObjective:
    """J(p, q) of one layer.

    A layer too wide for one covariance has one for each block of input channels. Products between
    blocks count as uncorrelated; all blocks share q and v.

    Attributes:
        parts: The regularised quadratic of each block of input channels, in their order.
        penalty: μ.
    """

    parts: tuple[_Part, ...]
    penalty: float

    @classmethod
    def of(
        cls,
        stats: Sequence[Statistics],
        kernel: Array,
        scale: Float,
        ridge: float,
        penalty: float,
    ) -> CpObjective:
        """Regularise and scale as the fit of pairs does.

        Args:
            stats: Moments of each block of input channels, in their order.
            kernel: W, (kh, kw, C, N).
            scale: (N,) see `fit.Terms.of`.
            ridge: λ, as there.
            penalty: μ.
        """
        each = zip(stats, channel_blocks(stats, kernel), strict=True)
        parts = [_Part.of(part, Terms.of(part, own, scale, ridge)) for part, own in each]
        return cls(tuple(parts), penalty)

    def for_descent(self) -> CpObjective:
        """Return the objective to step along: in float32 where that saves half of the time.

        A descent ends as low there as in float64, to a thousandth of J: what rounding adds to the
        objective, some 1e-7 of J(0), is far below what ten steps gain before it stops.
        """
        if max(len(part.cov) for part in self.parts) < _WIDE:
            return self
        return replace(self, parts=tuple(part.in_float32() for part in self.parts))

    @property
    def constant(self) -> float:
        """The value of J at Ŵ = 0."""
        return sum(part.terms.constant for part in self.parts)

    @property
    def kernel(self) -> Float:
        """W·s, (C, k², N)."""
        return np.concatenate([part.terms.kernel for part in self.parts])

    def spread(self) -> Float:
        """Return the standard deviation of each input channel, (C,), a mean over the taps."""
        found = []
        for part in self.parts:
            C, k2, _ = part.terms.kernel.shape
            variances = np.diag(part.cov).reshape(C, k2).mean(axis=1, dtype=np.float64)
            found.append(variances + part.terms.noise)
        return np.asarray(np.sqrt(np.concatenate(found)))

    def work(self, channels: int) -> float:
        """Multiplications of one evaluation with its gradient, to plan with."""
        each: list[float] = [
            len(part.cov) * channels * (len(part.cov) + 2.0 * channels + 2.0 * part.cross.shape[1])
            for part in self.parts
        ]
        return sum(each) + float(channels**3)

    def at(self, first: Float, taps: Float) -> Point:
        """Return the objective at p (C, R) and q (k², R), with the best v for them."""
        R, N = taps.shape[1], self.parts[0].cross.shape[1]
        normal, right, moved = np.zeros((R, R)), np.zeros((R, N)), []
        for part, features in self._features(first, taps):
            pulled = part.pulled(features)
            normal += features.T @ pulled
            right += features.T @ part.cross
            moved.append(pulled)
        variance = np.maximum(np.diag(normal), 0.0)
        # The length of each feature is free: solve for features of variance 1.
        root = np.sqrt(np.where(variance > 0, variance, 1.0))
        scaled = normal / root / root[:, None]
        scaled[np.diag_indices(R)] += self.penalty
        last = solve_positive(scaled, right / root[:, None]) / root[:, None]
        return Point(self.constant - float(np.vdot(last, right)), last, variance, tuple(moved))

    def gradient(self, first: Float, taps: Float, point: Point) -> tuple[Float, Float]:
        """∂J/∂p (C, R) and ∂J/∂q (k², R) at the point that `at` returned for p and q."""
        H = point.last @ point.last.T
        H[np.diag_indices(len(H))] *= 1 + self.penalty
        by_first, by_taps, start = [], np.zeros_like(taps), 0
        for part, pulled in zip(self.parts, point.moved, strict=True):
            C, k2, _ = part.terms.kernel.shape
            dtype = part.cov.dtype
            slope = pulled @ H.astype(dtype) - part.cross @ point.last.T.astype(dtype)
            slope = 2 * slope.reshape(C, k2, -1)
            by_first.append(np.einsum("car,ar->cr", slope, taps))
            by_taps += np.einsum("car,cr->ar", slope, first[start : start + C])
            start += C
        return np.concatenate(by_first), by_taps

    def _features(self, first: Float, taps: Float) -> list[tuple[_Part, Array]]:
        """U (D, R) beside each part."""
        found, start = [], 0
        for part in self.parts:
            C = len(part.terms.kernel)
            found.append((part, part.features(first[start : start + C], taps)))
            start += C
        return found


def channel_blocks(stats: Sequence[Statistics], kernel: Array) -> list[Array]:
    """Return the slices of a kernel (kh, kw, C, N) whose inputs the moments are of, in order."""
    taps = kernel.shape[0] * kernel.shape[1]
    ends = np.cumsum([len(part.cov) // taps for part in stats])
    return np.split(kernel, ends[:-1], axis=2)
