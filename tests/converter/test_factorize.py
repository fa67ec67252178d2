"""Pairs from the weights alone obey Eckart and Young."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsconvert.converter.core.fitting.factorize import (
    by_channel,
    from_weights,
    random_pairs,
    weight_errors,
)
from dsconvert.converter.core.fitting.pairs import Pairs
from dsconvert.converter.core.types import ORDERS, ConvSpec, error_between

pytestmark = pytest.mark.parametrize("order", ORDERS)

shapes = st.tuples(*[st.integers(1, 4)] * 2, *[st.integers(1, 7)] * 2)
seeds = st.integers(0, 2**32 - 1)


def normal(shape, seed):
    return np.random.default_rng(seed).normal(size=shape)


def full_rank(shape, order):
    kh, kw, C, N = shape
    spec = ConvSpec(name="", kernel_size=(kh, kw), in_channels=C, out_channels=N)
    return spec.full_rank(order)


def tail_errors(kernel, order):
    """sqrt(tail σ² / total σ²) for T = 1 … full rank, each channel's σ by numpy's SVD."""
    matrices = (
        [kernel[:, :, c, :] for c in range(kernel.shape[2])]
        if order == "depthwise-first"
        else [kernel[:, :, :, n] for n in range(kernel.shape[3])]
    )
    taps = kernel.shape[0] * kernel.shape[1]
    energy = sum(
        np.linalg.svd(matrix.reshape(taps, -1), compute_uv=False) ** 2 for matrix in matrices
    )
    return np.array([np.sqrt(energy[T:].sum() / energy.sum()) for T in range(1, len(energy) + 1)])


@given(shapes, seeds)
def test_full_rank_reproduces_the_kernel(order, shape, seed):
    kernel = normal(shape, seed)
    rank = full_rank(shape, order)
    factors = from_weights(kernel, None, order, rank)

    assert factors.pairs == rank
    np.testing.assert_allclose(factors.kernel(), kernel, atol=1e-10 * np.abs(kernel).max())


@given(shapes, seeds)
def test_error_is_the_tail_of_the_singular_values(order, shape, seed):
    kernel = normal(shape, seed)
    expected = tail_errors(kernel, order)
    made = [from_weights(kernel, None, order, T + 1) for T in range(len(expected))]

    # From the factors the error is exact; 1 − Σσ²/total loses half of float64's digits.
    np.testing.assert_allclose([f.weight_error for f in made], expected, atol=1e-10)
    np.testing.assert_allclose(
        [error_between(kernel, f.kernel()) for f in made], expected, atol=1e-10
    )
    np.testing.assert_allclose(weight_errors(kernel, order), expected, atol=1e-7)


@given(shapes, seeds)
def test_more_pairs_never_hurt(order, shape, seed):
    errors = weight_errors(normal(shape, seed), order)

    assert len(errors) == full_rank(shape, order)
    assert (np.diff(errors) <= 1e-12).all()


def test_no_more_pairs_than_the_full_rank_are_made(order):
    kernel = normal((3, 3, 5, 4), 0)

    assert from_weights(kernel, None, order, 99).pairs == full_rank(kernel.shape, order)


def test_shapes_and_bias(order):
    kernel, bias = normal((3, 2, 5, 4), 0), np.arange(4.0)
    factors = from_weights(kernel, bias, order, 2)
    depthwise_channels = 5 if order == "depthwise-first" else 4

    assert factors.depthwise.shape == (2, 3, 2, depthwise_channels)
    assert factors.pointwise.shape == (2, 5, 4)
    np.testing.assert_array_equal(factors.bias, bias)
    assert from_weights(kernel, None, order, 2).bias is None
    assert factors.data_error is None


def test_kernel_is_the_sum_of_the_products(order):
    rng = np.random.default_rng(0)
    depthwise = rng.normal(size=(2, 3, 2, 5 if order == "depthwise-first" else 4))
    pointwise = rng.normal(size=(2, 5, 4))
    kernel = Pairs(
        order=order, depthwise=depthwise, pointwise=pointwise, bias=None, weight_error=0.0
    ).kernel()

    for (a, b, c, n), value in np.ndenumerate(kernel):
        channel = c if order == "depthwise-first" else n
        assert value == pytest.approx(
            sum(depthwise[t, a, b, channel] * pointwise[t, c, n] for t in range(2)), abs=1e-12
        )


def test_zero_kernel_is_met_exactly(order):
    kernel = np.zeros((3, 3, 4, 5))
    factors = from_weights(kernel, None, order, 1)

    assert factors.weight_error == 0
    assert not factors.kernel().any()
    assert weight_errors(kernel, order).tolist() == [0] * full_rank(kernel.shape, order)


def test_matrices_by_channel(order):
    kernel = normal((3, 2, 5, 4), 0)
    matrices = by_channel(kernel, order)

    if order == "depthwise-first":
        assert matrices.shape == (5, 6, 4)
        np.testing.assert_array_equal(matrices[2], kernel[:, :, 2].reshape(6, 4))
    else:
        assert matrices.shape == (4, 6, 5)
        np.testing.assert_array_equal(matrices[2], kernel[..., 2].reshape(6, 5))


def test_random_pairs_are_fresh(order):
    kernel = normal((3, 3, 16, 12), 0)
    first, again, other = (
        random_pairs(kernel, np.ones(12), order, 2, np.random.default_rng(seed))
        for seed in (1, 1, 2)
    )
    channels = 16 if order == "depthwise-first" else 12

    np.testing.assert_array_equal(first.depthwise, again.depthwise)
    assert not np.array_equal(first.depthwise, other.depthwise)
    assert not first.bias.any()
    # Glorot uniform: limit sqrt(6 / (fan in + fan out)), nearly reached by so many draws.
    for values, fans in ((first.depthwise, 9 * channels + 9), (first.pointwise, 16 + 12)):
        limit = np.sqrt(6 / fans)
        assert 0.95 * limit < np.abs(values).max() <= limit
    assert random_pairs(kernel, None, order, 1, np.random.default_rng(0)).bias is None
