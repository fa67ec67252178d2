"""Small symmetric systems that may be singular: a hair of damping gives each one solution."""

from __future__ import annotations

import numpy as np
import scipy.linalg

from ..types import Float, as_float

BLOCK = 1 << 23
"""float64 values of scratch that many systems together may take, 64 MiB."""


def damped(normal: Float) -> Float:
    """Damp symmetric systems (B, n, n) in place by a hair, so that each has one solution.

    The system of a dead output is zero, and so is its solution.
    """
    diagonal = np.einsum("bii->bi", normal)
    diagonal += 1e-10 * diagonal.mean(axis=1, keepdims=True) + 1e-300
    return normal


def solve_definite(normal: Float, right: Float) -> Float:
    """Solve one symmetric system (n, n), twice as fast where it is positive definite."""
    _, found, failed = scipy.linalg.lapack.dposv(normal, right)
    return as_float(np.linalg.solve(normal, right) if failed else found)


def solve_positive(normal: Float, right: Float) -> Float:
    """Solve a symmetric positive semidefinite system; a hair of damping keeps it definite."""
    size = len(normal)
    damping = 1e-10 * max(float(np.trace(normal)) / size, 1e-300)
    damped = normal.copy()
    damped[np.diag_indices(size)] += damping
    try:
        # Of the transpose, which is the same matrix in LAPACK's order: no copy is made.
        factor = scipy.linalg.cho_factor(damped.T, lower=True, overwrite_a=True, check_finite=False)
        return np.asarray(scipy.linalg.cho_solve(factor, right, check_finite=False))
    except scipy.linalg.LinAlgError:
        return np.asarray(np.linalg.lstsq(normal, right, rcond=1e-12)[0])
