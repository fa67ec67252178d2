"""Moving statistics of a short training tell nothing of the scale of data."""

from __future__ import annotations

import numpy as np
import pytest

from dsconvert.models.evaluation.norm_convergence import is_unconverged


@pytest.fixture(scope="module")
def values():
    """Small activations of images / 255: per channel another mean and variance."""
    rng = np.random.default_rng(0)
    spread = rng.uniform(0.02, 0.2, 16)
    return rng.normal(rng.normal(0, 0.1, 16), spread, (64, 8, 8, 16))


def stored(values, steps, momentum=0.99, scale=1.0):
    """What BatchNorm remembers after so many steps on values times a scale."""
    left = momentum**steps
    x = values * scale
    mean, variance = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
    return (1 - left) * mean, left + (1 - left) * variance


@pytest.mark.parametrize("steps", [1, 20, 100, 300])
def test_few_steps_are_recognised(values, steps):
    mean, variance = stored(values, steps)
    assert variance.mean() > 2 * values.var(axis=(0, 1, 2)).mean()
    assert is_unconverged(values, (0, 1, 2), mean, variance)


@pytest.mark.parametrize("scale", [255.0, 1 / 255])
@pytest.mark.parametrize("size", [1.0, 10.0, 0.01])
def test_another_scale_is_no_short_training(values, scale, size):
    """The data are fed at another scale than the norm was trained with, for a long time."""
    mean, variance = stored(size * values, 10_000, scale=scale)
    assert not is_unconverged(size * values, (0, 1, 2), mean, variance)
