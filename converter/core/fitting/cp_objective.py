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
from dataclasses import dataclass

import numpy as np

from dsconvert.base.predictor import Array

from ..types import Float
from .fit import Problem
from .moments import Statistics
from .solves import solve_positive


@dataclass(frozen=True)
class Point:
    """The objective at some p and q.

    Attributes:
        value: J.
        last: V, (R, N).
        variance: Var(u_rᵀx), (R,).
        moved: C·U of each block of input channels, (D, R).
    """

    value: float
    last: Float
    variance: Float
    moved: tuple[Float, ...]


@dataclass(frozen=True)
class CpObjective:
    """J(p, q) of one layer.

    A layer too wide for one covariance has one for each block of input channels. Products between
    blocks count as uncorrelated; all blocks share q and v.

    Attributes:
        parts: The regularised quadratic of each block of input channels, in their order.
        penalty: μ.
    """

    parts: tuple[Problem, ...]
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
            scale: (N,) see `fit.Problem.of`.
            ridge: λ, as there.
            penalty: μ.
        """
        taps = kernel.shape[0] * kernel.shape[1]
        parts, first = [], 0
        for part in stats:
            last = first + len(part.cov) // taps
            parts.append(Problem.of(part, kernel[:, :, first:last], scale, ridge))
            first = last
        return cls(tuple(parts), penalty)

    @property
    def constant(self) -> float:
        """The value of J at Ŵ = 0."""
        return sum(part.constant for part in self.parts)

    @property
    def kernel(self) -> Float:
        """W·s, (C, k², N)."""
        return np.concatenate([part.kernel for part in self.parts])

    def spread(self) -> Float:
        """Return the standard deviation of each input channel, (C,), a mean over the taps."""
        found = [np.einsum("iaia->i", part.cov) / part.cov.shape[1] for part in self.parts]
        return np.asarray(np.sqrt(np.concatenate(found)))

    def work(self, channels: int) -> float:
        """Multiplications of one evaluation with its gradient, to plan with."""
        wide = [part.kernel.shape[0] * part.kernel.shape[1] for part in self.parts]
        outputs = self.parts[0].kernel.shape[2]
        each: list[float] = [D * channels * (D + 2.0 * channels + 2.0 * outputs) for D in wide]
        return sum(each) + float(channels**3)

    def at(self, first: Float, taps: Float) -> Point:
        """Return the objective at p (C, R) and q (k², R), with the best v for them."""
        R, N = taps.shape[1], self.parts[0].kernel.shape[2]
        normal, right, moved = np.zeros((R, R)), np.zeros((R, N)), []
        for part, features in self._features(first, taps):
            pulled = part.cov.reshape(len(features), -1) @ features
            normal += features.T @ pulled
            right += features.T @ part.cross.reshape(len(features), N)
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
            C, k2, N = part.kernel.shape
            slope = 2 * (pulled @ H - part.cross.reshape(C * k2, N) @ point.last.T)
            slope = slope.reshape(C, k2, -1)
            by_first.append(np.einsum("car,ar->cr", slope, taps))
            by_taps += np.einsum("car,cr->ar", slope, first[start : start + C])
            start += C
        return np.concatenate(by_first), by_taps

    def best_kernel(self, shape: tuple[int, ...]) -> Float:
        """Return the unrestricted minimum as a scaled kernel of ``shape`` (kh, kw, C, N)."""
        kh, kw, _, N = shape
        found = [part.best_kernel((kh, kw, len(part.kernel), N)) for part in self.parts]
        return np.concatenate(found, axis=2)

    def _features(self, first: Float, taps: Float) -> list[tuple[Problem, Float]]:
        """U (D, R) beside each part."""
        found, start = [], 0
        for part in self.parts:
            C, k2, _ = part.kernel.shape
            own = first[start : start + C, None, :] * taps
            found.append((part, own.reshape(C * k2, -1)))
            start += C
        return found
