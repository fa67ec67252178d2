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
from .quadratic import Dense, Quadratic
from .solves import solve_positive

_WIDE = 512
"""Features, C·k², from which on the descent computes in float32: below, calls take the time."""


@dataclass(frozen=True)
class Point:
    """The objective at some p and q.

    Attributes:
        value: J.
        last: V, (R, N).
        gram: UᵀCU without λ, (R, R).
        right: B, (R, N).
        moved: What `quadratic.Quadratic.moved` gives of each block of input channels.
    """

    value: float
    last: Float
    gram: Float
    right: Float
    moved: tuple[Array, ...]


@dataclass(frozen=True)
class Seen:
    """What the data make of the terms, without λ and without weights of the outputs.

    Attributes:
        variance: Var(u_rᵀx), (R,).
        missed: Σ_n E(y_n − ŷ_n)², if the bias is right.
    """

    variance: Float
    missed: float


@dataclass(frozen=True)
class _Part:
    """The regularised quadratic of one block of input channels.

    Attributes:
        stats: The moments.
        cov: C without λ.
        cross: (G + λW)·s, (D, N), in the precision of ``cov``.
        terms: The rest.
    """

    stats: Statistics
    cov: Quadratic
    cross: Array
    terms: Terms

    @classmethod
    def of(cls, stats: Statistics, terms: Terms) -> _Part:
        return cls(stats, Dense(stats.cov), terms.cross.reshape(len(stats.cov), -1), terms)

    def in_float32(self) -> _Part:
        return replace(self, cov=self.stats.single, cross=self.cross.astype(np.float32))

    def features(self, first: Float, taps: Float) -> Array:
        """Return U, (D, R), of this block's own p, in the precision of the moments."""
        first, taps = first.astype(self.cov.dtype), taps.astype(self.cov.dtype)
        return (first[:, None, :] * taps).reshape(len(self.cross), -1)

    def squares(self, first: Float, taps: Float) -> Float:
        """Return λ·UᵀU, (R, R): as U is made of products, so is this."""
        return np.asarray(self.terms.noise * (first.T @ first) * (taps.T @ taps))

    def gradient(
        self, first: Float, taps: Float, moved: Array, last: Float, H: Float
    ) -> tuple[Float, Float]:
        """Return its share of half the gradient: by its own p (C, R), and by q (k², R)."""
        dtype = self.cov.dtype
        slope = self.cov.slope(moved, H.astype(dtype)) - self.cross @ last.T.astype(dtype)
        slope = slope.reshape(len(first), len(taps), -1)
        by_first = np.einsum("car,ar->cr", slope, taps.astype(dtype))
        by_taps = np.einsum("car,cr->ar", slope, first.astype(dtype))
        by_first = by_first + self.terms.noise * (first @ ((taps.T @ taps) * H))
        return by_first, by_taps + self.terms.noise * (taps @ ((first.T @ first) * H))


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
        if max(len(part.cross) for part in self.parts) < _WIDE:
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
            variances = np.diag(part.stats.cov).reshape(C, k2).mean(axis=1, dtype=np.float64)
            found.append(variances + part.terms.noise)
        return np.asarray(np.sqrt(np.concatenate(found)))

    def roots(self) -> list[Float]:
        """Return the root of the covariance of the input channels of each block, (C, C), with λ."""
        found = []
        for part in self.parts:
            taps = part.terms.kernel.shape[1]
            values, vectors = np.linalg.eigh(part.stats.of_channels(taps))
            size = np.sqrt(np.maximum(values, 0.0) + part.terms.noise)
            found.append((vectors * size) @ vectors.T)
        return found

    def work(self, channels: int) -> float:
        """Multiplications of one evaluation with its gradient, to plan with."""
        each: list[float] = [
            len(part.cross) * channels * (len(part.cross) + 2.0 * (channels + part.cross.shape[1]))
            for part in self.parts
        ]
        return sum(each) + float(channels**3)

    def at(self, first: Float, taps: Float) -> Point:
        """Return the objective at p (C, R) and q (k², R), with the best v for them."""
        R, N = taps.shape[1], self.parts[0].cross.shape[1]
        gram, ridge, right, moved = np.zeros((R, R)), np.zeros((R, R)), np.zeros((R, N)), []
        for part, own, features in self._blocks(first, taps):
            moved.append(part.cov.moved(features))
            gram += part.cov.gram(features, moved[-1])
            ridge += part.squares(own, taps)
            right += features.T @ part.cross
        normal = gram + ridge
        variance = np.diag(normal)
        # The length of each feature is free: solve for features of variance 1.
        root = np.sqrt(np.where(variance > 0, variance, 1.0))
        scaled = normal / root / root[:, None]
        scaled[np.diag_indices(R)] += self.penalty
        last = solve_positive(scaled, right / root[:, None]) / root[:, None]
        value = self.constant - float(np.vdot(last, right))
        return Point(value, last, gram, right, tuple(moved))

    def gradient(self, first: Float, taps: Float, point: Point) -> tuple[Float, Float]:
        """∂J/∂p (C, R) and ∂J/∂q (k², R) at the point that `at` returned for p and q."""
        H = point.last @ point.last.T
        H[np.diag_indices(len(H))] *= 1 + self.penalty
        by_first, by_taps, start = [], np.zeros_like(taps), 0
        for part, moved in zip(self.parts, point.moved, strict=True):
            own = first[start : start + len(part.terms.kernel)]
            by_own, by_shared = part.gradient(own, taps, moved, point.last, H)
            by_first.append(by_own)
            by_taps += by_shared
            start += len(own)
        return 2 * np.concatenate(by_first), 2 * by_taps

    def seen(self, first: Float, taps: Float, point: Point, scale: Float) -> Seen:
        """Read off a point what the data make of its terms: nothing is multiplied by C again.

        Args:
            first: p, (C, R).
            taps: q, (k², R).
            point: What `at` returned for p and q.
            scale: (N,) that the objective was made with.
        """
        last, cross, var_y = point.last / scale, point.right.copy(), 0.0
        for part, _, features in self._blocks(first, taps):
            weights = part.terms.kernel.reshape(len(features), -1)
            cross -= part.terms.noise * (features.T @ weights)
            var_y += float(part.stats.var_y.sum())
        gained = 2 * float(np.vdot(last, cross / scale)) - float(np.vdot(last, point.gram @ last))
        return Seen(np.maximum(np.diag(point.gram), 0.0), max(var_y - gained, 0.0))

    def _blocks(self, first: Float, taps: Float) -> list[tuple[_Part, Float, Array]]:
        """Return each part, its own p (C, R) and U (D, R)."""
        found, start = [], 0
        for part in self.parts:
            own = first[start : start + len(part.terms.kernel)]
            found.append((part, own, part.features(own, taps)))
            start += len(own)
        return found


def channel_blocks(stats: Sequence[Statistics], kernel: Array) -> list[Array]:
    """Return the slices of a kernel (kh, kw, C, N) whose inputs the moments are of, in order."""
    taps = kernel.shape[0] * kernel.shape[1]
    ends = np.cumsum([len(part.cov) // taps for part in stats])
    return np.split(kernel, ends[:-1], axis=2)
