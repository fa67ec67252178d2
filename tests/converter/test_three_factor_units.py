"""A three-factor fit does the same in any units of what its layer puts out."""

import numpy as np
import pytest
from fitted_layers import exact, layer

from dsconvert.converter.core.fitting.cp_objective import CpObjective
from dsconvert.converter.core.fitting.fit import FitOptions
from dsconvert.converter.core.fitting.three_factor_fit import fit_three_factors

UNITS = 1e-4, 1.0, 1e4


def descent(unit, monkeypatch):
    """The share of the objective that is left after each step, and the evaluations of them all."""
    x, y, kernel = layer((3, 3, 6, 8), 0, drift=0.3)
    values, evaluated, at = [], [], CpObjective.at

    def counted(self, first, taps):
        evaluated.append(0)
        return at(self, first, taps)

    with monkeypatch.context() as patch:
        patch.setattr(CpObjective, "at", counted)
        fit_three_factors(
            [exact(x, y * unit)],
            kernel * unit,
            7,
            trace=values.append,
            options=FitOptions(steps=12, tolerance=0.0, starts=1),
        )
    return np.asarray(values) / values[0], len(evaluated)


def test_units_change_neither_the_steps_nor_their_number(monkeypatch):
    (small, few), (usual, some), (large, many) = (descent(unit, monkeypatch) for unit in UNITS)
    assert len(usual) == 13
    assert small == pytest.approx(usual, rel=1e-6)
    assert large == pytest.approx(usual, rel=1e-6)
    assert few == some == many <= 15  # one where it begins, one a step, and few beside
