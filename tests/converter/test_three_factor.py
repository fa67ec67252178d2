"""Three-factor blocks: steps go downhill, exact cases are met, and free scales are free."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import scipy.optimize
from fitted_layers import exact, flat, layer
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import ThreadpoolController

from dsconvert.converter.core.fitting.cp_objective import CpObjective
from dsconvert.converter.core.fitting.factorize import from_weights
from dsconvert.converter.core.fitting.fit import FitOptions
from dsconvert.converter.core.fitting.mobilenet_block import fresh_block
from dsconvert.converter.core.fitting.quadratic import Dense
from dsconvert.converter.core.fitting.threads import one_blas_thread, single_threaded
from dsconvert.converter.core.fitting.three_factor import from_pairs, rescaled
from dsconvert.converter.core.fitting.three_factor_fit import (
    fit_three_factors,
    full_channels,
    three_factors_from_weights,
)
from dsconvert.converter.core.types import ORDERS

shapes = st.tuples(*[st.integers(1, 3)] * 2, *[st.integers(1, 5)] * 2)
wide_shapes = st.tuples(st.integers(2, 3), st.integers(1, 3), *[st.integers(2, 5)] * 2)
seeds = st.integers(0, 2**32 - 1)

few = settings(max_examples=15)
"""Each example is a whole fit."""


def inner(x, factors):
    """What x makes of the R channels: before the depthwise convolution (P, k², R), and after it."""
    kh, kw, R = factors.depthwise.shape
    patches = x.reshape(len(x), -1, kh * kw)
    before = np.einsum("pca,cr->par", patches, factors.pointwise_in)
    return before, np.einsum("par,ar->pr", before, factors.depthwise.reshape(kh * kw, R))


def test_a_fit_takes_one_blas_thread_and_gives_the_others_back():
    x, y, kernel = layer((3, 3, 4, 4), 0)
    libraries = ThreadpoolController().select(user_api="blas")
    seen = set()

    def look(_):
        seen.update(one["num_threads"] for one in libraries.info())

    with libraries.limit(limits=2):
        fit_three_factors([exact(x, y)], kernel, 4, trace=look, options=FitOptions(starts=1))
        assert {one["num_threads"] for one in libraries.info()} == {2}
    # The history is told at the end of the fit, which is inside it.
    assert seen == {1}


def test_a_fit_that_ends_leaves_the_others_one_blas_thread():
    libraries = ThreadpoolController().select(user_api="blas")

    def numbers():
        return {one["num_threads"] for one in libraries.info()}

    with libraries.limit(limits=2):
        with one_blas_thread(), ThreadPoolExecutor(1) as pool:
            assert pool.submit(single_threaded(numbers)).result() == {1}
            assert numbers() == {1}
        assert numbers() == {2}


# The fit.


@few
@given(wide_shapes, seeds, st.booleans())
def test_no_step_goes_uphill(shape, seed, weighted):
    x, y, kernel = layer(shape, seed, drift=0.3)
    stats = exact(x, y)
    rng = np.random.default_rng(seed)
    weight = 10 ** rng.uniform(-5, 2, shape[3]) if weighted else None
    R = max(1, full_channels(shape) // 2)
    values = []
    factors = fit_three_factors(
        [stats],
        kernel,
        R,
        output_weight=weight,
        trace=values.append,
        options=FitOptions(steps=15, tolerance=0.0),
    )
    counts = np.ones(shape[3]) if weight is None else np.maximum(weight, 1e-6 * weight.max())
    noise = 1e-3 * np.trace(stats.cov) / len(stats.cov)
    zero = float(counts @ (stats.var_y + noise * (flat(kernel) ** 2).sum(axis=0)))

    assert len(values) >= 2
    assert (np.diff(values) <= 1e-12 * zero).all()
    # What it follows is the objective of the factors it returns.
    estimate = flat(factors.kernel())
    gaps = ((flat(kernel) - estimate) ** 2).sum(axis=0)
    missed = float(counts @ (stats.explained(estimate) + noise * gaps))
    _, after = inner(x, factors)
    kh, kw, _ = factors.depthwise.shape
    length = (factors.pointwise_in**2).sum(axis=0) * (
        factors.depthwise.reshape(kh * kw, -1) ** 2
    ).sum(axis=0)
    terms = (after.var(axis=0) + noise * length) @ (factors.pointwise_out**2 @ counts)
    expected = missed + FitOptions().penalty * terms
    assert values[-1] == pytest.approx(expected, rel=1e-6, abs=1e-9 * zero)


@pytest.mark.parametrize("seed", range(2))
def test_a_wide_layer_is_fitted_in_float32_as_well_as_in_float64(seed, monkeypatch):
    x, y, kernel = layer((3, 3, 64, 8), seed, drift=0.3)
    x[:, :9] *= 100  # one input channel varies more than the others
    stats, options = exact(x, y), FitOptions(steps=60, tolerance=0.0)
    objective = CpObjective.of([stats], kernel, np.ones(8), options.ridge, options.penalty)
    assert objective.for_descent().parts[0].cov.dtype == np.float32

    quick = fit_three_factors([stats], kernel, 12, options=options)
    monkeypatch.setattr(CpObjective, "for_descent", lambda self: self)
    exactly = fit_three_factors([stats], kernel, 12, options=options)

    assert quick.data_error == pytest.approx(exactly.data_error, rel=5e-3)
    p, q = quick.pointwise_in, quick.depthwise.reshape(9, 12)
    # The last factor is solved for in float64, whatever the steps were taken in.
    best = objective.at(p, q).last
    np.testing.assert_allclose(quick.pointwise_out, best, atol=1e-9 * np.abs(best).max())


def test_a_trial_fit_multiplies_by_no_float64_covariance(monkeypatch):
    x, y, kernel = layer((3, 3, 64, 8), 0, drift=0.3)
    stats, options = exact(x, y), FitOptions(steps=20, tolerance=0.0, starts=1)
    exactly = fit_three_factors([stats], kernel, 12, options=options)
    of_rows, seen = Dense.moved, []

    def moved(self, features):
        seen.append(self.dtype)
        return of_rows(self, features)

    monkeypatch.setattr(Dense, "moved", moved)
    quick = fit_three_factors([stats], kernel, 12, options=replace(options, exact_end=False))
    assert set(seen) == {np.dtype(np.float32)}
    assert quick.data_error == pytest.approx(exactly.data_error, rel=1e-4)
    fit_three_factors([stats], kernel, 12, options=options)
    assert np.dtype(np.float64) in seen


def test_a_block_has_the_factors_that_the_descent_ended_with_not_the_last_it_tried(monkeypatch):
    x, y, kernel = layer((3, 3, 4, 5), 0)
    expected = fit_three_factors([exact(x, y)], kernel, 3)
    minimize = scipy.optimize.minimize

    def tries_once_more(fun, x0, **options):
        result = minimize(fun, x0, **options)
        fun(1.5 * result.x)
        return result

    monkeypatch.setattr(scipy.optimize, "minimize", tries_once_more)
    found = fit_three_factors([exact(x, y)], kernel, 3)
    assert found.data_error == expected.data_error
    np.testing.assert_array_equal(found.pointwise_out, expected.pointwise_out)


@pytest.mark.parametrize("seed", range(3))
def test_the_fit_ends_at_a_stationary_point(seed):
    x, y, kernel = layer((3, 3, 4, 5), seed)
    x[:, :9] *= 100  # one input channel varies more than the others
    stats = exact(x, y)
    options = FitOptions(steps=3000, tolerance=-1.0, penalty=0.1)
    factors = fit_three_factors([stats], kernel, 3, options=options)

    objective = CpObjective.of([stats], kernel, np.ones(5), options.ridge, options.penalty)
    p, q = factors.pointwise_in, factors.depthwise.reshape(9, 3)
    point = objective.at(p, q)
    assert point.value < 0.9 * objective.constant
    by_p, by_q = objective.gradient(p, q, point)
    # A change of any of them by 1 % would lower the objective by no more than a millionth.
    assert np.abs(by_p * p).max() < 1e-4 * point.value
    assert np.abs(by_q * q).max() < 1e-4 * point.value


@given(shapes, seeds)
def test_full_rank_finds_the_kernel(shape, seed):
    x, y, kernel = layer(shape, seed)
    factors = fit_three_factors([exact(x, y)], kernel, full_channels(shape))

    # The solver's damping disturbs by 1e-7: see the tests of the pairs' fit.
    np.testing.assert_allclose(factors.kernel(), kernel, atol=1e-6 * np.linalg.norm(kernel))
    assert factors.data_error < 1e-4
    assert factors.channels <= full_channels(shape)
    plain = three_factors_from_weights(kernel, None, 1000)
    np.testing.assert_allclose(plain.kernel(), kernel, atol=1e-6 * np.linalg.norm(kernel))


@pytest.mark.parametrize("order", ORDERS)
@given(shapes, seeds, st.integers(1, 3))
def test_any_sum_of_pairs_is_a_block(order, shape, seed, T):
    pairs = from_weights(
        np.random.default_rng(seed).normal(size=shape), np.ones(shape[3]), order, T
    )
    block = from_pairs(pairs)

    depthwise_channels = shape[2] if order == "depthwise-first" else shape[3]
    assert block.channels == pairs.pairs * depthwise_channels
    np.testing.assert_allclose(block.kernel(), pairs.kernel(), atol=1e-12)
    np.testing.assert_array_equal(block.bias, pairs.bias)


@given(shapes, seeds)
def test_the_layers_of_its_branch_multiply_to_its_kernel(shape, seed):
    block = from_pairs(from_weights(layer(shape, seed)[2], None, "depthwise-first", 2))
    gain = np.random.default_rng(seed).normal(size=shape[3])
    ((first, depthwise, last),) = block.scaled(gain).branches()

    assert [part.ending for part in (first, depthwise, last)] == ["in", "dw", "out"]
    made = np.einsum("cr,abrm,rn->abcn", first.kernel, depthwise.kernel, last.kernel)
    np.testing.assert_allclose(made, block.kernel() * gain, atol=1e-12)
    assert block.choice.channels == block.channels == first.kernel.shape[1]


def test_mobilenet_blocks_are_no_three_factor_blocks():
    pairs = from_weights(np.ones((3, 3, 2, 2)), None, "depthwise-first", 1)
    with pytest.raises(ValueError, match="activation"):
        from_pairs(fresh_block(pairs))


@few
@given(seeds, st.integers(1, 2))
def test_a_layer_of_pairs_is_found_again(seed, T):
    pairs = from_weights(
        np.random.default_rng(seed).normal(size=(3, 3, 3, 5)), None, "depthwise-first", T
    )
    x, y, kernel = layer((3, 3, 3, 5), seed, kernel=pairs.kernel())
    stats = exact(x, y)
    factors = fit_three_factors([stats], kernel, 3 * T)

    # At the pairs themselves only the penalty and the ridge are left: J cannot end above that.
    _, after = inner(x, from_pairs(pairs))
    terms = after.var(axis=0) @ (from_pairs(pairs).pointwise_out ** 2).sum(axis=1)
    share = float(terms / stats.var_y.sum())
    assert factors.data_error**2 <= FitOptions().penalty * share * 1.01 + 1e-3


@few
@given(wide_shapes, seeds)
def test_weights_alone_do_no_worse_than_pairs_of_as_many_channels(shape, seed):
    kernel = np.random.default_rng(seed).normal(size=shape)
    pairs = from_weights(kernel, None, "depthwise-first", 1)
    block = three_factors_from_weights(kernel, np.ones(shape[3]), shape[2])

    allowed = pairs.weight_error**2 + FitOptions().penalty + 1e-6
    assert block.weight_error**2 <= allowed
    np.testing.assert_array_equal(block.bias, np.ones(shape[3]))
    assert block.data_error is None


@few
@given(wide_shapes, seeds)
def test_the_fit_can_begin_with_a_wider_block(shape, seed):
    x, y, kernel = layer(shape, seed)
    stats = exact(x, y)
    R = max(2, full_channels(shape) // 2)
    wide = fit_three_factors([stats], kernel, R)
    values = []
    narrow = fit_three_factors([stats], kernel, R - 1, start=wide, trace=values.append)

    assert narrow.channels == min(R, full_channels(shape)) - 1
    p = wide.pointwise_in[:, : R - 1]
    q = wide.depthwise.reshape(-1, wide.channels)[:, : R - 1]
    begun = CpObjective.of([stats], kernel, np.ones(shape[3]), 1e-3, FitOptions().penalty).at(p, q)
    assert values[0] == pytest.approx(begun.value, rel=1e-6)
    assert values[-1] <= values[0]


def test_the_penalty_keeps_terms_from_cancelling():
    # Of rank 3, but the limit of tensors of rank 2 whose terms grow without bound.
    a, b = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    sides = [(a, a, b), (a, b, a), (b, a, a)]
    kernel = sum(np.einsum("k,c,n->kcn", *side) for side in sides)[:, None]  # (2, 1, C, N)
    x = np.random.default_rng(0).normal(size=(200, 4))
    stats = exact(x, x @ flat(kernel))
    free, held = (
        fit_three_factors([stats], kernel, 2, options=FitOptions(penalty=mu, tolerance=0.0))
        for mu in (0.0, 1e-2)
    )
    assert free.data_error < 0.1
    assert free.cancellation > 20
    assert held.cancellation < 3
    assert held.data_error < 0.5
    assert "terms cancel" in free.notes[-1]
    assert held.notes == ()


@few
@given(wide_shapes, seeds)
def test_channels_have_a_mean_square_of_one_and_their_scale_is_free(shape, seed):
    x, y, kernel = layer(shape, seed)
    factors = fit_three_factors([exact(x, y)], kernel, max(1, full_channels(shape) // 2))
    before, after = inner(x, factors)
    np.testing.assert_allclose((before**2).mean(axis=(0, 1)), 1, rtol=1e-6)
    np.testing.assert_allclose((after**2).mean(axis=0), 1, rtol=1e-6)
    sizes = np.linalg.norm(factors.pointwise_out, axis=1)
    assert (np.diff(sizes) <= 1e-12 * sizes[0]).all()

    rng = np.random.default_rng(seed)
    first, second = 10 ** rng.uniform(-3, 3, (2, factors.channels))
    moved = rescaled(factors, first, second)
    new_before, new_after = inner(x, moved)
    np.testing.assert_allclose(new_before, before * first, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(new_after, after * second, rtol=1e-9, atol=1e-9 * second.max())
    # Rounding errors are relative to the terms, which may cancel.
    terms = np.linalg.norm(after[:, :, None] * factors.pointwise_out, axis=0).sum()
    np.testing.assert_allclose(moved.kernel(), factors.kernel(), atol=1e-12 * max(terms, 1))


def test_the_same_seed_gives_the_same_factors():
    x, y, kernel = layer((3, 3, 6, 7), 5)
    stats = exact(x, y)
    one, two = (fit_three_factors([stats], kernel, 8, seed=3) for _ in range(2))
    for name in ("pointwise_in", "depthwise", "pointwise_out", "bias"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))


def test_more_starts_do_no_worse():
    x, y, kernel = layer((3, 3, 6, 7), 6)
    stats = exact(x, y)
    ends = []
    for starts in (1, 2, 3, 4):
        values = []
        options = FitOptions(starts=starts)
        fit_three_factors([stats], kernel, 8, options=options, trace=values.append)
        ends.append(values[-1])
    assert (np.diff(ends) <= 0).all()
    assert ends[-1] < ends[0]


@pytest.mark.parametrize("channels", [4, 1000])
def test_bias_restores_the_mean_output(channels):
    x, y, kernel = layer((3, 3, 4, 6), 1, drift=0.5)
    factors = fit_three_factors([exact(x, y)], kernel, channels)
    estimate = x @ flat(factors.kernel()) + factors.bias

    np.testing.assert_allclose(estimate.mean(axis=0), y.mean(axis=0), rtol=1e-9)
    error = np.linalg.norm(y - estimate) / np.linalg.norm(y - y.mean(axis=0))
    assert factors.data_error == pytest.approx(error, rel=1e-8)
    _, after = inner(x, factors)
    terms = after.var(axis=0) @ (factors.pointwise_out**2).sum(axis=1) / y.var(axis=0).sum()
    assert factors.cancellation == pytest.approx(terms, rel=1e-8)
    assert fit_three_factors([exact(x, y)], kernel, channels, keeps_bias=False).bias is None


@pytest.mark.parametrize("channels", [3, 1000])
def test_dead_channels_stay_dead(channels):
    x, y, kernel = layer((3, 3, 5, 6), 3)
    x.reshape(len(x), 5, 9)[:, 1] = 0  # an input that is always zero
    kernel[..., 2] = 0  # an output that is always zero
    y = x @ flat(kernel)
    factors = fit_three_factors([exact(x, y)], kernel, channels)

    for array in (factors.pointwise_in, factors.depthwise, factors.pointwise_out, factors.bias):
        assert np.isfinite(array).all()
    assert np.abs(factors.kernel()[..., 2]).max() < 1e-9
    assert factors.data_error < 1


def test_a_kernel_of_zeros_stays_zero():
    x, y, kernel = layer((3, 3, 3, 4), 3, kernel=np.zeros((3, 3, 3, 4)))
    factors = fit_three_factors([exact(x, y)], kernel, 2)
    assert np.abs(factors.kernel()).max() < 1e-9
    np.testing.assert_allclose(factors.bias, y[0], atol=1e-9)


def test_a_wide_layer_is_fitted_to_its_weights_in_blocks(monkeypatch):
    """Inputs that are independent have no products between blocks: the error is the same."""
    from dsconvert.converter.core.fitting import three_factor_fit

    kernel = np.random.default_rng(0).normal(size=(3, 3, 16, 5))
    whole = three_factor_fit.three_factors_from_weights(kernel, None, 8)
    monkeypatch.setattr(three_factor_fit, "_WIDE", 72)  # blocks of two channels
    assert len(three_factor_fit._white(kernel)) == 8
    parts = three_factor_fit.three_factors_from_weights(kernel, None, 8)
    assert parts.weight_error == pytest.approx(whole.weight_error, rel=1e-3)


def test_a_kernel_of_zeros_has_an_exact_block():
    from dsconvert.converter.core.fitting.three_factor_fit import three_factors_from_weights

    made = three_factors_from_weights(np.zeros((3, 3, 4, 5)), None, 2)
    assert not made.kernel().any()
