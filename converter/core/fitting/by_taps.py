"""The two solves of a pointwise-first pair, each output on its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..types import Float
from .solves import BLOCK, damped, solve_definite


@dataclass(frozen=True)
class ByTaps:
    """The covariance by pairs of taps a ≤ b, for the two solves of each output.

    Both need Σ_ab d_a d_b C[:, a, :, b], in which (a, b) and (b, a) may be added beforehand.

    Attributes:
        sums: C[:, a, :, b] + C[:, b, :, a] for a < b and C[:, a, :, a], (k²(k² + 1)/2, C·C).
        first: a of each.
        second: b of each.
        double: How often each occurs among all (a, b): 2 or 1.
    """

    sums: Float
    first: NDArray[np.intp]
    second: NDArray[np.intp]
    double: Float

    @classmethod
    def of(cls, cov: Float) -> ByTaps:
        """Sum (C, k², C, k²)."""
        C, k2 = cov.shape[:2]
        first, second = np.triu_indices(k2)
        sums = np.empty((len(first), C, C))
        for row, (a, b) in enumerate(zip(first, second, strict=True)):
            sums[row] = cov[:, a, :, b]
            if a != b:
                sums[row] += cov[:, b, :, a]
        double = np.where(first == second, 1.0, 2.0)
        return cls(sums.reshape(len(first), C * C), first, second, double)

    def pointwise(self, taps: Float, gap: Float) -> Float:
        """For each n solve Q p = r with Q = Σ_ab d_a d_b C[:, a, :, b], r = Σ_a d_a gap[:, a, n].

        Args:
            taps: d, (N, k²).
            gap: What is to be explained, (C, k², N).
        """
        N, C = len(taps), gap.shape[0]
        right = np.einsum("na,can->nc", taps, gap, optimize=True)
        result = np.empty((N, C))
        rows = max(1, BLOCK // (C * C + len(self.sums)))
        for first in range(0, N, rows):
            d = taps[first : first + rows]
            normal = ((d[:, self.first] * d[:, self.second]) @ self.sums).reshape(len(d), C, C)
            for n, one in enumerate(damped(normal), first):
                result[n] = solve_definite(one, right[n])
        return result

    def depthwise(self, mixers: Float, gap: Float) -> tuple[Float, float]:
        """For each n solve R d = r with R[a, b] = pᵀC[:, a, :, b]p and r = Σ_c p_c gap[c, :, n].

        Args:
            mixers: p, (N, C).
            gap: See `pointwise`.

        Returns:
            d, (N, k²), and by how much the objective is lower than without this pair.
        """
        N, C = mixers.shape
        k2 = gap.shape[1]
        right = np.einsum("nc,can->na", mixers, gap, optimize=True)
        taps = np.empty((N, k2))
        rows = max(1, BLOCK // (C * C + k2 * k2))
        for start in range(0, N, rows):
            p = mixers[start : start + rows]
            squares = (p[:, :, None] * p[:, None, :]).reshape(len(p), C * C)
            normal = np.empty((len(p), k2, k2))
            normal[:, self.first, self.second] = squares @ self.sums.T / self.double
            normal[:, self.second, self.first] = normal[:, self.first, self.second]
            some = right[start : start + rows, :, None]
            taps[start : start + rows] = np.linalg.solve(damped(normal), some)[..., 0]
        return taps, float(np.vdot(taps, right))
