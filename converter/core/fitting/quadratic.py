"""Uᵀ·C·U and its slope for a covariance C, by whichever form of C takes the fewer multiplications.

Of P patches with P < D/2, as a late layer has from few images, C = FᵀF with F the patches.
Then UᵀCU = ZᵀZ with Z = FU, and neither this nor its slope FᵀZ needs C: 2·P·D·R multiplications
instead of D²·R, and P·R² instead of D·R².
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from dsconvert.base.predictor import Array


class Quadratic(Protocol):
    """The covariance C (D, D) of inputs, as a quadratic form of features U (D, R)."""

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """The precision that it computes in."""

    def moved(self, features: Array) -> Array:
        """Return what both others are made of."""

    def gram(self, features: Array, moved: Array) -> Array:
        """Return UᵀCU, (R, R)."""

    def slope(self, moved: Array, weights: Array) -> Array:
        """Return C·U·H for H (R, R), (D, R)."""


@dataclass(frozen=True)
class Dense:
    """C as it is.

    Attributes:
        cov: (D, D).
    """

    cov: Array

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """See `Quadratic`."""
        return self.cov.dtype

    def moved(self, features: Array) -> Array:
        """C·U, (D, R)."""
        return np.asarray(self.cov @ features)

    def gram(self, features: Array, moved: Array) -> Array:
        """See `Quadratic`."""
        return np.asarray(features.T @ moved)

    def slope(self, moved: Array, weights: Array) -> Array:
        """See `Quadratic`."""
        return np.asarray(moved @ weights)


@dataclass(frozen=True)
class Rows:
    """C = FᵀF.

    Attributes:
        rows: F, (P, D).
    """

    rows: Array

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """See `Quadratic`."""
        return self.rows.dtype

    def moved(self, features: Array) -> Array:
        """F·U, (P, R)."""
        return np.asarray(self.rows @ features)

    def gram(self, features: Array, moved: Array) -> Array:
        """See `Quadratic`."""
        return np.asarray(moved.T @ moved)

    def slope(self, moved: Array, weights: Array) -> Array:
        """See `Quadratic`."""
        return np.asarray(self.rows.T @ (moved @ weights))
