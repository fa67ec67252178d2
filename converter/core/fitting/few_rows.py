"""A refit from fewer samples than inputs: the rows themselves are smaller than their covariance.

With X (P, D) the centred inputs and Y (P, N) the centred outputs, the ridge regression towards W,
min ‖Y − XŴ‖²/P + λ‖Ŵ − W‖², has the solution Ŵ = W + Xᵀ(XXᵀ + PλI)⁻¹(Y − XW): a system of P
unknowns instead of D (the dual form, Saunders et al. 1998). `fit.refit` solves the other one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dsconvert.base.predictor import Array

from ..stages import Weights
from ..types import as_float
from .solves import solve_positive
from .threads import single_threaded


@single_threaded
def refit_rows(x: Array, y: Array, kernel: Array, ridges: Sequence[float]) -> list[Weights]:
    """Return the best weights of a dense layer for each ridge, as `fit.refit` does from moments.

    Args:
        x: The inputs that it actually gets, (P, D).
        y: The outputs to aim at, (P, N).
        kernel: The trained W, (1, 1, D, N), towards which the ridge pulls.
        ridges: λ relative to the mean variance of the inputs.
    """
    x, y, weights = as_float(x), as_float(y), as_float(kernel[0, 0])
    mean_x, mean_y = x.mean(axis=0), y.mean(axis=0)
    x = x - mean_x
    missed = y - mean_y - x @ weights
    gram = x @ x.T
    # P·λ of a ridge of 1: the mean variance of the inputs is the trace over P·D.
    unit = max(float(np.trace(gram)) / x.shape[1], 1e-12 * len(x))
    found = []
    for ridge in ridges:
        system = gram.copy()
        system[np.diag_indices(len(x))] += ridge * unit
        best = weights + x.T @ solve_positive(system, missed)
        found.append(Weights(best[None, None], mean_y - best.T @ mean_x))
    return found
