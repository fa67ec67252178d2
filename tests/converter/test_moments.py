"""Streamed moments are the moments of the whole."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsconvert.converter.core.fitting.moments import Moments

# Products are formed in float32 (2⁻²⁴ ≈ 6e-8) around the first batch's mean, which may be some
# standard deviations off: some ten variances, summed in a few hundred steps that round either way.
FLOAT32 = 1e-5


def sample(seed, rows, features=5, outputs=3, offset=0.0):
    """Correlated x and y around an offset, as the float32 numbers the moments will see."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, features)) @ rng.normal(size=(features, features)) + offset
    y = x @ rng.normal(size=(features, outputs)) + rng.normal(size=(rows, outputs))
    return x.astype(np.float32), y.astype(np.float32)


def gathered(x, y, cuts):
    moments = Moments(x.shape[1], y.shape[1])
    for part_x, part_y in zip(np.split(x, cuts), np.split(y, cuts), strict=True):
        if len(part_x):
            moments.update(part_x, part_y)
    return moments.statistics()


def assert_moments_of(stats, x, y):
    together = np.cov(x.T, y.T, bias=True, dtype=np.float64)
    D, sd = x.shape[1], np.sqrt(np.diag(together))
    scale = np.outer(sd, sd)
    assert stats.count == len(x)
    np.testing.assert_allclose(
        stats.cov / scale[:D, :D], together[:D, :D] / scale[:D, :D], atol=FLOAT32
    )
    np.testing.assert_allclose(
        stats.cross / scale[:D, D:], together[:D, D:] / scale[:D, D:], atol=FLOAT32
    )
    np.testing.assert_allclose(stats.var_y, np.diag(together)[D:], rtol=FLOAT32)
    np.testing.assert_allclose(
        (stats.mean_x - x.mean(axis=0, dtype=np.float64)) / sd[:D], 0, atol=FLOAT32
    )
    np.testing.assert_allclose(
        (stats.mean_y - y.mean(axis=0, dtype=np.float64)) / sd[D:], 0, atol=FLOAT32
    )


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 199), max_size=5).map(sorted))
def test_batches_add_up_to_the_whole(seed, cuts):
    x, y = sample(seed, 200)

    assert_moments_of(gathered(x, y, cuts), x, y)


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 19), max_size=3).map(sorted))
def test_few_patches_are_kept_as_rows(seed, cuts):
    x, y = sample(seed, 20, features=41, offset=10.0)
    stats = gathered(x, y, cuts)

    assert stats.rows.shape == (20, 41)
    size = np.abs(stats.cov).max()
    np.testing.assert_allclose(stats.rows.T @ stats.rows, stats.cov, atol=FLOAT32 * size)


def test_many_patches_are_not_kept():
    x, y = sample(0, 21, features=41)

    assert gathered(x, y, [10]).rows is None


def test_large_mean_costs_no_precision():
    x, y = sample(0, 400, offset=1000.0)

    assert_moments_of(gathered(x, y, [37, 200]), x, y)


def test_errors_are_those_of_the_samples():
    x, y = (array.astype(np.float64) for array in sample(3, 300))
    stats = gathered(x, y, [100])
    kernel = np.random.default_rng(4).normal(size=(5, 3))
    centred_x, centred_y = x - x.mean(axis=0), y - y.mean(axis=0)
    misses = centred_y - centred_x @ kernel

    np.testing.assert_allclose(stats.explained(kernel), (misses**2).mean(axis=0), rtol=1e-5)
    assert stats.relative_error(kernel) == pytest.approx(
        np.linalg.norm(misses) / np.linalg.norm(centred_y), rel=1e-5
    )
    np.testing.assert_allclose(
        stats.output_variance(kernel), (centred_x @ kernel).var(axis=0), rtol=1e-5
    )


def test_constant_outputs_have_no_relative_error():
    stats = gathered(sample(0, 20)[0], np.full((20, 3), 7.0, np.float32), [])

    np.testing.assert_array_equal(stats.var_y, np.zeros(3))
    assert stats.relative_error(np.zeros((5, 3))) == 0


def test_nothing_added_is_an_error():
    with pytest.raises(ValueError, match="no patches"):
        Moments(2, 1).statistics()


def test_moments_are_returned_once():
    """The covariance stands where the sums were, which are gone."""
    moments = Moments(5, 3)
    moments.update(*sample(0, 20))
    moments.statistics()

    with pytest.raises(ValueError, match="already"):
        moments.statistics()
    with pytest.raises(ValueError, match="already"):
        moments.update(*sample(0, 20))
