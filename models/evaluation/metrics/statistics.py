"""Statistics that are means or ratios of figures of each sample."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .metric import Indices

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Mean:
    """The mean of a figure of each sample, (n,)."""

    scores: Float
    resamples: int = 1000

    @property
    def binary(self) -> bool:
        """Tell whether each sample is right or wrong."""
        return bool(np.isin(self.scores, (0, 1)).all())

    def of(self, index: Indices) -> float:
        """Compute the mean over these samples."""
        return float(self.scores[index].mean())


@dataclass(frozen=True)
class Ratios:
    """The mean over classes of Σ parts / Σ wholes; classes without a whole are left out.

    Attributes:
        parts: Of each sample and class, (n, K).
        wholes: The same.
    """

    parts: Float
    wholes: Float
    resamples: int = 1000

    def of(self, index: Indices) -> float:
        """Compute the mean ratio over these samples; NaN where no class has a whole."""
        times = np.bincount(index, minlength=len(self.parts)).astype(np.float64)
        part, whole = times @ self.parts, times @ self.wholes
        there = whole > 0
        return float((part[there] / whole[there]).mean()) if there.any() else float("nan")
