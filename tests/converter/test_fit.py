"""Pairs fitted to data: every step goes downhill, and closed forms are met where there are any."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from fitted_layers import exact, flat, layer
from hypothesis import given
from hypothesis import strategies as st

from dsconvert.converter.core.fitting.factorize import by_channel, from_weights
from dsconvert.converter.core.fitting.few_rows import refit_rows
from dsconvert.converter.core.fitting.fit import FitOptions, fit, pointwise_first_work, refit
from dsconvert.converter.core.fitting.linear_block import AFFORDABLE_WORK
from dsconvert.converter.core.fitting.moments import Statistics
from dsconvert.converter.core.types import ORDERS

# The solver adds 1e-10 of the mean diagonal to systems whose smallest eigenvalue is the ridge's
# 1e-3 of it or more: a relative disturbance of 1e-7.
SOLVED = 1e-6

shapes = st.tuples(*[st.integers(1, 3)] * 2, *[st.integers(1, 5)] * 2)
seeds = st.integers(0, 2**32 - 1)


def objective(stats, kernel, estimate, weight, ridge):
    """J by its definition: weighted squared errors, and the ridge's pull to the trained kernel."""
    noise = ridge * np.trace(stats.cov) / len(stats.cov)
    gaps = ((flat(kernel) - flat(estimate)) ** 2).sum(axis=0)
    return float(weight @ (stats.explained(flat(estimate)) + noise * gaps))


@pytest.mark.parametrize("order", ORDERS)
@given(shapes, seeds)
def test_full_rank_finds_the_kernel_from_data(order, shape, seed):
    x, y, kernel = layer(shape, seed)
    factors = fit(exact(x, y), kernel, order, 9)

    np.testing.assert_allclose(factors.kernel(), kernel, atol=SOLVED * np.linalg.norm(kernel))
    assert factors.data_error < 1e-4  # the square root of what float64 leaves of Var(y)


@pytest.mark.parametrize("order", ORDERS)
@given(shapes, seeds)
def test_full_rank_is_ridge_regression_on_drifted_inputs(order, shape, seed):
    x, y, kernel = layer(shape, seed, drift=0.3)
    stats = exact(x, y)
    noise = 1e-3 * np.trace(stats.cov) / len(stats.cov) * np.eye(len(stats.cov))
    best = np.linalg.solve(stats.cov + noise, stats.cross + noise @ flat(kernel))
    tolerance = SOLVED * np.linalg.norm(best)

    factors = fit(stats, kernel, order, 9)
    np.testing.assert_allclose(flat(factors.kernel()), best, atol=tolerance)

    weights = refit(stats, kernel, 1e-3)
    np.testing.assert_allclose(flat(weights.kernel), best, atol=tolerance)
    np.testing.assert_allclose(
        (x @ flat(weights.kernel) + weights.bias - y).mean(axis=0), 0, atol=1e-9
    )


@given(st.integers(1, 12), st.integers(1, 9), st.integers(1, 4), seeds)
def test_rows_and_their_moments_give_the_same_weights(rows, inputs, outputs, seed):
    x, y, kernel = layer((1, 1, inputs, outputs), seed, drift=0.3)
    x, y = x[:rows], y[:rows]
    ridges = (0.03, 3.0)

    for ridge, got in zip(ridges, refit_rows(x, y, kernel, ridges), strict=True):
        expected = refit(exact(x, y), kernel, ridge)
        size = np.linalg.norm(expected.kernel)
        np.testing.assert_allclose(got.kernel, expected.kernel, atol=SOLVED * size)
        np.testing.assert_allclose(got.bias, expected.bias, atol=SOLVED * size * np.abs(x).max())


@pytest.mark.parametrize("order", ORDERS)
@given(shapes, seeds, st.integers(1, 3), st.booleans())
def test_no_step_goes_uphill(order, shape, seed, pairs, weighted):
    x, y, kernel = layer(shape, seed, drift=0.3)
    stats = exact(x, y)
    rng = np.random.default_rng(seed)
    # Outputs that count for much, for little and for next to nothing.
    weight = 10 ** rng.uniform(-5, 2, shape[3]) if weighted else None
    values = []
    factors = fit(
        stats,
        kernel,
        order,
        pairs,
        output_weight=weight,
        trace=values.append,
        options=FitOptions(sweeps=4, tolerance=0.0),
    )
    if not values:  # full rank: solved at once
        assert factors.pairs == min(by_channel(kernel, order).shape[1:])
        return
    counts = np.ones(shape[3]) if weight is None else np.maximum(weight, 1e-6 * weight.max())
    start = objective(stats, kernel, np.zeros(shape), counts, 1e-3)

    assert len(values) >= 5
    assert (np.diff(values) <= 1e-9 * start).all()
    # What it follows is the objective of the factors it returns.
    final = objective(stats, kernel, factors.kernel(), counts, 1e-3)
    assert values[-1] == pytest.approx(final, rel=1e-6, abs=1e-9 * start)


@pytest.mark.parametrize("order", ORDERS)
@given(shapes, seeds, st.integers(1, 2))
def test_data_do_no_worse_than_weights(order, shape, seed, pairs):
    x, y, kernel = layer(shape, seed)
    stats = exact(x, y)
    from_data = fit(stats, kernel, order, pairs)
    by_weights = from_weights(kernel, None, order, pairs)

    # relative_error() takes the bias for granted. The ridge may cost what it is worth: 1e-3.
    assert from_data.data_error <= stats.relative_error(flat(by_weights.kernel())) + 1e-3
    assert from_data.weight_error >= by_weights.weight_error - 1e-9  # Eckart-Young


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("pairs", [1, 2, 3])
def test_white_data_say_no_more_than_the_weights(order, pairs):
    _, _, kernel = layer((3, 3, 5, 4), 0)
    stats = Statistics(
        cov=2.0 * np.eye(45),
        cross=2.0 * flat(kernel),
        mean_x=np.zeros(45),
        mean_y=np.zeros(4),
        var_y=2.0 * (flat(kernel) ** 2).sum(axis=0),
        count=1,
    )
    factors = fit(stats, kernel, order, pairs)
    expected = from_weights(kernel, None, order, pairs).weight_error

    assert factors.weight_error == pytest.approx(expected, rel=1e-6)
    assert factors.data_error == pytest.approx(expected, rel=1e-6)


@given(seeds, st.integers(1, 3))
def test_start_is_the_best_where_channels_are_independent(seed, pairs):
    x, _, kernel = layer((2, 2, 3, 5), seed)
    stats = exact(x, x @ flat(kernel))
    cov = stats.cov * np.kron(np.eye(3), np.ones((4, 4)))
    apart = replace(
        stats,
        cov=cov,
        cross=cov @ flat(kernel),
        var_y=np.einsum("dn,de,en->n", flat(kernel), cov, flat(kernel)),
    )
    values = []
    fit(apart, kernel, "depthwise-first", pairs, trace=values.append)

    # Each channel's whitened SVD is then the solution, and no sweep finds a better one.
    assert values[0] == pytest.approx(values[-1], rel=1e-6)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("pairs", [1, 9])
def test_bias_restores_the_mean_output(order, pairs):
    x, y, kernel = layer((3, 3, 4, 6), 1, drift=0.5)
    factors = fit(exact(x, y), kernel, order, pairs)
    estimate = x @ flat(factors.kernel()) + factors.bias

    np.testing.assert_allclose(estimate.mean(axis=0), y.mean(axis=0), rtol=1e-10)
    error = np.linalg.norm(y - estimate) / np.linalg.norm(y - y.mean(axis=0))
    assert factors.data_error == pytest.approx(error, rel=1e-8)
    assert fit(exact(x, y), kernel, order, pairs, keeps_bias=False).bias is None


@pytest.mark.parametrize("order", ORDERS)
def test_output_weights_move_the_error_and_only_ratios_count(order):
    x, y, kernel = layer((3, 3, 4, 6), 2)
    stats = exact(x, y)
    options = FitOptions(sweeps=40, tolerance=0.0)
    weight = np.array([100.0, 1, 1, 1, 1, 1])

    def misses(output_weight):
        factors = fit(stats, kernel, order, 1, output_weight=output_weight, options=options)
        return stats.explained(flat(factors.kernel()))

    even, uneven = misses(None), misses(weight)
    np.testing.assert_allclose(misses(7 * weight), uneven, rtol=1e-6)
    if order == "depthwise-first":  # outputs share the taps: what one gains others lose
        assert uneven[0] < 0.9 * even[0]
        assert weight @ uneven < weight @ even
        assert even.sum() < uneven.sum()
    else:  # each output has pairs of its own
        np.testing.assert_allclose(uneven, even, rtol=1e-3)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("pairs", [1, 3])
def test_dead_channels_stay_dead(order, pairs):
    x, y, kernel = layer((3, 3, 5, 6), 3)
    x.reshape(len(x), 5, 9)[:, 1] = 0  # an input that is always zero
    kernel[..., 2] = 0  # an output that is always zero
    y = x @ flat(kernel)
    factors = fit(exact(x, y), kernel, order, pairs)

    assert np.isfinite(factors.depthwise).all()
    assert np.isfinite(factors.pointwise).all()
    assert np.abs(factors.kernel()[..., 2]).max() < 1e-9
    assert factors.bias[2] == pytest.approx(0, abs=1e-9)
    assert factors.data_error < 1


@pytest.mark.parametrize("order", ORDERS)
def test_depthwise_kernels_have_unit_length(order):
    x, y, kernel = layer((3, 3, 4, 6), 4)
    factors = fit(exact(x, y), kernel, order, 2)

    np.testing.assert_allclose(np.linalg.norm(factors.depthwise, axis=(1, 2)), 1, rtol=1e-12)


@pytest.mark.parametrize("order", ORDERS)
def test_kernels_of_31_taps_a_side(order):
    """Of 961 taps: a step per pair of them, or a solve per sweep, took minutes."""
    rng = np.random.default_rng(0)
    shape = (31, 31, 2, 2)
    kernel = rng.normal(size=shape)
    factor = rng.normal(size=(2 * 961, 40))
    cov = factor @ factor.T + np.eye(len(factor))
    cross = cov @ flat(kernel)
    stats = Statistics(
        cov=cov,
        cross=cross,
        mean_x=np.zeros(len(cov)),
        mean_y=np.zeros(2),
        var_y=np.einsum("dn,dn->n", flat(kernel), cross),
        count=9999,
    )
    values = []
    fitted = fit(stats, kernel, order, 1, options=FitOptions(sweeps=2), trace=values.append)
    start = from_weights(kernel, None, order, 1)

    assert fitted.data_error < 0.9 * stats.relative_error(flat(start.kernel()))
    assert all(after <= before * (1 + SOLVED) for before, after in pairwise(values))


def test_large_kernels_are_too_much_work_pointwise_first():
    """Each output has a system of its own: that of 961 taps is more than the layer is worth."""
    assert pointwise_first_work((3, 3, 64, 64), 1) < AFFORDABLE_WORK
    assert pointwise_first_work((31, 31, 2, 8), 1) > AFFORDABLE_WORK
