"""Products with a covariance come out alike from the covariance and from fewer rows."""

import numpy as np
import pytest
from fitted_layers import exact, flat
from hypothesis import given
from hypothesis import strategies as st

from dsconvert.converter.core.fitting import cp_objective
from dsconvert.converter.core.fitting.cp_objective import CpObjective
from dsconvert.converter.core.fitting.fit import FitOptions
from dsconvert.converter.core.fitting.quadratic import Dense, Rows
from dsconvert.converter.core.fitting.three_factor_end import finished
from dsconvert.converter.core.fitting.three_factor_fit import fit_three_factors

seeds = st.integers(0, 2**32 - 1)


def few_patches(seed, shape=(3, 3, 12, 7), count=30):
    """The moments of fewer patches than half of their length, and the layer's kernel."""
    rng = np.random.default_rng(seed)
    D = shape[0] * shape[1] * shape[2]
    kernel = rng.normal(size=shape)
    x = rng.normal(size=(count, D)) * rng.uniform(0.1, 3, D) + rng.normal(size=D)
    return exact(x, x @ flat(kernel) + rng.normal(size=(count, shape[3]))), kernel


@given(seeds, st.integers(1, 6))
def test_rows_give_what_the_covariance_gives(seed, R):
    stats, _ = few_patches(seed)
    rng = np.random.default_rng(seed)
    features, weights = rng.normal(size=(len(stats.cov), R)), rng.normal(size=(R, R))
    dense, low = Dense(stats.cov), Rows(stats.rows)
    there, here = dense.moved(features), low.moved(features)
    for expected, got in [
        (dense.gram(features, there), low.gram(features, here)),
        (dense.slope(there, weights), low.slope(here, weights)),
    ]:
        np.testing.assert_allclose(got, expected, atol=1e-5 * np.abs(expected).max())


def test_rows_are_taken_only_where_they_are_few():
    few, _ = few_patches(0, count=30)
    many, _ = few_patches(0, count=100)
    assert isinstance(few.single, Rows)
    assert few.single is few.single  # made once for all fits
    assert isinstance(many.single, Dense)
    assert few.single.dtype == many.single.dtype == np.float32


@pytest.mark.parametrize("seed", range(2))
def test_the_objective_of_few_patches_is_that_of_the_covariance(seed, monkeypatch):
    stats, kernel = few_patches(seed)
    objective = CpObjective.of([stats], kernel, np.ones(7), 1e-3, 2e-3)
    monkeypatch.setattr(cp_objective, "_WIDE", 0)
    quick = objective.for_descent()
    assert isinstance(quick.parts[0].cov, Rows)
    rng = np.random.default_rng(seed)
    p, q = rng.normal(size=(12, 5)), rng.normal(size=(9, 5))
    here, there = quick.at(p, q), objective.at(p, q)
    assert here.value == pytest.approx(there.value, rel=1e-4)
    for got, expected in zip(
        quick.gradient(p, q, here), objective.gradient(p, q, there), strict=True
    ):
        np.testing.assert_allclose(got, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("R", [3, 8])
def test_what_a_block_misses_is_read_off_its_fit(R):
    stats, kernel = few_patches(5, count=300)
    weight = np.random.default_rng(0).uniform(0.5, 2, kernel.shape[3])
    factors = fit_three_factors([stats], kernel, R, output_weight=weight)
    again = finished(factors, [stats], kernel, True)  # multiplied out
    for name in ("data_error", "cancellation", "weight_error"):
        assert getattr(factors, name) == pytest.approx(getattr(again, name), rel=1e-9)
    np.testing.assert_allclose(factors.bias, again.bias, rtol=1e-9)
    np.testing.assert_allclose(factors.pointwise_out, again.pointwise_out, rtol=1e-7)


def test_a_descent_does_not_compute_its_start_twice(monkeypatch):
    stats, kernel = few_patches(1)
    seen = []
    at = CpObjective.at

    def watch(self, first, taps):
        seen.append(first)
        return at(self, first, taps)

    monkeypatch.setattr(CpObjective, "at", watch)
    fit_three_factors([stats], kernel, 4, options=FitOptions(steps=2, starts=1))
    assert len(seen) >= 3
    assert not np.allclose(seen[0], seen[1])
