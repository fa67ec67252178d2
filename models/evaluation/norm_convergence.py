"""Whether a BatchNorm's moving statistics ever reached those of its training data."""

from __future__ import annotations

import numpy as np

from dsconvert.base.predictor import Array

_ALIKE = 0.7
"""Natural logarithm: variances within a factor of two are alike."""
_MEAN = 0.5
"""Share of the stored means that may be left unexplained."""


def is_unconverged(values: Array, axes: tuple[int, ...], mean: Array, variance: Array) -> bool:
    """Tell whether moving statistics are what a short training leaves of their first values.

    They begin at mean 0 and variance 1, and every step of training moves them a little. After few
    steps they are ``r · 0 + (1 − r) · E x`` and ``r · 1 + (1 − r) · V x``, with one r for all
    channels, which says nothing about the scale of the data. Data of another scale fit no such r:
    what explains the variances is then far from the means.

    Args:
        values: What the norm gets, (n, ...).
        axes: All but that of the channels.
        mean: Its moving means, (C,).
        variance: Its moving variances, (C,).
    """
    x = np.asarray(values, np.float64)
    seen_mean, seen = x.mean(axis=axes), x.var(axis=axes)
    left = np.geomspace(1e-4, 1.0, 200)[:, None]  # 1 − r
    explained = (1 - left) + left * seen
    errors = np.median(np.abs(np.log(np.maximum(explained, 1e-12) / variance)), axis=1)
    best = int(errors.argmin())
    moved = float(left[best, 0])
    unexplained = np.linalg.norm(mean - moved * seen_mean)
    return bool(
        moved < 1.0
        and errors[best] < _ALIKE
        and unexplained <= _MEAN * np.linalg.norm(moved * seen_mean)
    )
