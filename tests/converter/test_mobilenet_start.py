"""Where a MobileNet block starts: near the linear pair that it takes the place of."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import layers

from dsconvert.converter.core.fitting.factorize import from_weights
from dsconvert.converter.core.fitting.mobilenet_block import (
    Sample,
    fit_block,
    fresh_block,
    inner_moments,
    shifted,
    through,
)
from dsconvert.converter.core.fitting.moments import Moments
from dsconvert.converter.core.fitting.pairs import Pairs
from dsconvert.converter.core.types import ORDERS

DW = ORDERS[0]


def pairs_of(T: int, C: int = 4, N: int = 5, seed: int = 0) -> Pairs:
    """Fitted pairs as they come from a random kernel, with a bias."""
    rng = np.random.default_rng(seed)
    kernel = rng.normal(size=(3, 3, C, N))
    return from_weights(kernel, rng.normal(size=N), DW, T)


def linear(pairs: Pairs, inner: np.ndarray) -> np.ndarray:
    """What pairs make of their depthwise outputs (P, T·C)."""
    T, C, N = pairs.pointwise.shape
    return inner @ pairs.pointwise.reshape(T * C, N) + pairs.bias


def block(pairs: Pairs, inner: np.ndarray) -> np.ndarray:
    return linear(pairs, through(pairs.between, inner))


class TestStart:
    @given(st.integers(0, 99), st.sampled_from([1, 2]), st.floats(-50, 50), st.floats(0.01, 100))
    def test_a_large_shift_is_the_linear_pair(self, seed, T, offset, size):
        """No one of P values lies more than √P standard deviations from their mean."""
        P = 30
        pairs = pairs_of(T, seed=seed)
        inner = np.random.default_rng(seed).exponential(size=(P, T * 4)) * size + offset
        mean, variance = (x.reshape(T, 4) for x in (inner.mean(0), inner.var(0)))
        made = block(shifted(pairs, mean, variance, np.sqrt(P) + 0.01), inner.astype(np.float32))
        # Float32 around an offset: a rounding of the largest term of a sum of eight.
        terms = np.abs(inner).max() * np.abs(pairs.pointwise).max() * 8
        spread = 10 * np.sqrt(variance.max()) * np.abs(pairs.pointwise).max() * 8
        np.testing.assert_allclose(made, linear(pairs, inner), atol=4e-7 * (terms + spread))

    def test_the_norm_holds_the_statistics_of_the_depthwise_outputs(self):
        rng, pairs = np.random.default_rng(3), pairs_of(2)
        x = rng.normal(size=(500, 4, 9)).astype(np.float32) + 1
        taps = pairs.depthwise.reshape(2, 9, 4)
        inner = np.einsum("pca,tac->ptc", x, taps)
        stats = []
        blocks = [slice(0, 3), slice(3, 4)]
        for part in blocks:
            moments = Moments(9 * (part.stop - part.start), 5)
            moments.update(x[:, part].reshape(500, -1), np.zeros((500, 5), np.float32))
            stats.append(moments.statistics())
        mean, variance = inner_moments(pairs, stats, blocks)
        np.testing.assert_allclose(mean, inner.mean(0), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(variance, inner.var(0), rtol=1e-4)

        between = shifted(pairs, mean, variance, 2.0).between
        normed = through(between, inner.reshape(500, 8).astype(np.float32) + 1e3)  # nothing is cut
        # ε = 1e-3 beside variances of about 1.
        np.testing.assert_allclose(normed.std(0), 1, atol=2e-3)

    def test_the_pointwise_kernel_is_fitted_to_what_the_relu_lets_through(self):
        sample, pairs, mean, variance = self.sample()
        for shift in (0.0, 0.5):
            fitted, _ = fit_block(pairs, mean, variance, sample, shifts=[shift], ridge=1e-6)
            naive = shifted(pairs, mean, variance, shift)
            assert fitted.data_error == pytest.approx(self.error(fitted, sample), rel=1e-3)
            assert fitted.data_error < 0.9 * self.error(naive, sample)

    def test_held_out_patches_choose_the_shift(self):
        sample, pairs, mean, variance = self.sample()
        each = {
            shift: fit_block(pairs, mean, variance, sample, shifts=[shift], ridge=1e-6)[0]
            for shift in (0.0, 1.0, 3.0)
        }
        best, stats = fit_block(pairs, mean, variance, sample, shifts=list(each), ridge=1e-6)
        errors = {shift: made.data_error for shift, made in each.items()}
        assert errors[0.0] > 1.1 * errors[1.0] > errors[3.0]  # 0 costs too much, 1 hardly anything
        assert best.data_error == errors[1.0]
        assert "cuts 1 σ" in best.notes[-1]
        assert stats.count == np.count_nonzero(~sample.held_out)

    def test_the_longer_tail_is_kept(self):
        """Of z = −exponential the ReLU keeps what lies below, by turning the kernel around."""
        sample, pairs, mean, variance = self.sample(sign=-1.0)
        fitted, _ = fit_block(pairs, mean, variance, sample, shifts=[0.5], ridge=1e-6)
        np.testing.assert_array_equal(fitted.depthwise, -pairs.depthwise)
        turned = Sample(-sample.inner, sample.target, sample.held_out)
        other = pairs_of(1)
        other = replace(other, pointwise=-other.pointwise)
        same, _ = fit_block(other, -mean, variance, turned, shifts=[0.5], ridge=1e-6)
        assert fitted.data_error == pytest.approx(same.data_error, rel=1e-6)

    def sample(self, sign: float = 1.0):
        rng, pairs = np.random.default_rng(1), pairs_of(1)
        inner = (sign * rng.exponential(size=(600, 4))).astype(np.float32)
        target = linear(pairs, inner) + 0.1 * rng.normal(size=(600, 5))
        held_out = np.arange(600) >= 480
        mean, variance = inner.mean(0)[None], inner.var(0)[None]
        return Sample(inner, target.astype(np.float32), held_out), pairs, mean, variance

    def error(self, pairs: Pairs, sample: Sample) -> float:
        """‖y − ŷ‖ / ‖y − E y‖ on the held-out patches."""
        sign = np.sign((pairs.depthwise * pairs_of(1).depthwise).sum((1, 2))).astype(np.float32)
        inner, target = sample.inner[sample.held_out], sample.target[sample.held_out]
        gap = target - block(pairs, inner * sign)
        return float(np.linalg.norm(gap) / np.linalg.norm(target - target.mean(0)))


def test_untrained_blocks_are_what_keras_makes():
    pairs = fresh_block(pairs_of(2))
    layer = layers.BatchNormalization()
    layer.build((None, 4))
    expected = [np.tile(weight, (2, 1)) for weight in layer.get_weights()]
    between = pairs.between
    got = [between.gamma, between.beta, between.mean, between.variance]
    np.testing.assert_array_equal(got, expected)
    assert between.epsilon == layer.epsilon
