"""The objective of three factors is its definition, and the gradient its derivative."""

from dataclasses import replace

import numpy as np
import pytest
from fitted_layers import exact, flat, layer
from hypothesis import given, settings
from hypothesis import strategies as st

from dsconvert.converter.core.fitting.cp_objective import CpObjective
from dsconvert.converter.core.fitting.three_factor_fit import fit_three_factors

shapes = st.tuples(*[st.integers(1, 3)] * 2, *[st.integers(1, 5)] * 2)
seeds = st.integers(0, 2**32 - 1)


@given(shapes, seeds, st.integers(1, 6), st.sampled_from([0.0, 0.1]))
def test_objective_is_its_definition_and_the_gradient_its_derivative(shape, seed, R, penalty):
    x, y, kernel = layer(shape, seed, drift=0.3)
    stats = exact(x, y)
    rng = np.random.default_rng(seed)
    kh, kw, C, N = shape
    p, q = rng.normal(size=(C, R)), rng.normal(size=(kh * kw, R))
    weight = rng.uniform(0.5, 2, N)
    objective = CpObjective.of([stats], kernel, np.sqrt(weight), 1e-2, penalty)
    point = objective.at(p, q)
    noise = 1e-2 * np.trace(stats.cov) / len(stats.cov)

    def by_definition(v):
        estimate = np.einsum("cr,ar,rn->can", p, q, v).reshape(-1, N)
        gaps = ((flat(kernel) - estimate) ** 2).sum(axis=0)
        features = np.einsum("cr,ar->car", p, q).reshape(-1, R)
        own = np.einsum("dr,dr->r", features, stats.cov @ features + noise * features)
        cancelling = penalty * own @ (v**2 * weight).sum(axis=1)
        return float(weight @ (stats.explained(estimate) + noise * gaps) + cancelling)

    last = point.last / np.sqrt(weight)
    zero = objective.constant
    assert point.value == pytest.approx(by_definition(last), rel=1e-6, abs=1e-9 * zero)
    for _ in range(3):  # no other last factor does better
        other = last + rng.normal(size=last.shape) * 1e-2 * np.linalg.norm(last)
        assert by_definition(other) >= point.value - 1e-7 * zero

    by_p, by_q = objective.gradient(p, q, point)
    dp, dq = rng.normal(size=p.shape), rng.normal(size=q.shape)
    step = 1e-5
    ahead = objective.at(p + step * dp, q + step * dq).value
    behind = objective.at(p - step * dp, q - step * dq).value
    slope = float(np.vdot(by_p, dp) + np.vdot(by_q, dq))
    assert (ahead - behind) / (2 * step) == pytest.approx(slope, rel=1e-3, abs=1e-5 * point.value)


@settings(max_examples=15)  # each is a whole fit
@given(seeds)
def test_blocks_of_channels_that_are_independent_are_one_layer(seed):
    x, y, kernel = layer((2, 2, 4, 3), seed)
    stats = exact(x, y)
    cov = stats.cov * np.kron(np.eye(2), np.ones((8, 8)))
    cov[:8, :8] *= 8 * 2 / np.trace(cov[:8, :8])  # each with the same mean variance, so the same λ
    cov[8:, 8:] *= 8 * 2 / np.trace(cov[8:, 8:])
    weights = flat(kernel)

    def moments(rows):
        return replace(
            stats,
            cov=cov[rows, rows],
            cross=cov[rows, rows] @ weights[rows],
            mean_x=stats.mean_x[rows],
            mean_y=weights[rows].T @ stats.mean_x[rows],
            var_y=np.einsum("dn,de,en->n", weights[rows], cov[rows, rows], weights[rows]),
        )

    whole, parts = moments(slice(0, 16)), [moments(slice(0, 8)), moments(slice(8, 16))]
    rng = np.random.default_rng(seed)
    p, q = rng.normal(size=(4, 5)), rng.normal(size=(4, 5))
    one = CpObjective.of([whole], kernel, np.ones(3), 1e-3, 0.01)
    two = CpObjective.of(parts, kernel, np.ones(3), 1e-3, 0.01)
    here, there = one.at(p, q), two.at(p, q)

    assert there.value == pytest.approx(here.value, rel=1e-9)
    for got, expected in zip(two.gradient(p, q, there), one.gradient(p, q, here), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-8 * np.abs(expected).max())

    factors = fit_three_factors(parts, kernel, 3)
    assert factors.pointwise_in.shape == (4, 3)
    got = whole.mean_y - flat(factors.kernel()).T @ whole.mean_x
    np.testing.assert_allclose(factors.bias, got, rtol=1e-9, atol=1e-9)
    assert factors.data_error == pytest.approx(
        whole.relative_error(flat(factors.kernel())), rel=1e-6
    )
