"""How large a step is, a share of each tensor's size, and what features count in it.

Steps of one size for all tensors first damage what was fitted: the kernels of a rewritten network
differ a hundredfold in their size. Both rise and fall from step to step.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

WARMUP = 0.05
"""Share of all steps in which the rate rises."""
_SMALLEST = 1e-3
"""A kernel of zeros would otherwise not move at all."""
_SMALLEST_BIAS = 1e-2
"""What is added behind a kernel often begins at zero, and ends at a share of the outputs."""

_RATE_PER_ERROR, _LARGEST_RATE = 0.02, 0.02
_RATE_PER_ROOT_OF_STEPS, _LEAST_RATE, _MIDDLE_RATE = 2.5e-4, 2e-3, 1e-2
_MOST_PER_ERROR, _SMALLEST_RATE = 0.15, 5e-4
_ROUNDED_RATE_PER_ERROR, _LEAST_ROUNDED_RATE, _LARGEST_ROUNDED_RATE = 0.01, 1e-3, 5e-3


def rate_for(error: float | None, steps: int, *, rounded: bool = False) -> float:
    """Return the highest rate for a student that is so far from its teacher.

    A student that is near is spoilt by steps that one far off needs, unless there are enough steps
    for it to come back; one that is very near does not, and neither does one through a rounding.
    Measured were the best rates of networks with errors of 0.012, 0.06, 0.2 and 0.9 nats, and of
    90, 280 and 1,800 steps; with rounding those for errors of 0.12 and 0.27 nats and 300 steps.

    Args:
        error: `dsconvert.base.fidelity.output_error` at the start; None where it is not finite.
        steps: How many are to be taken.
        rounded: Whether the weights are rounded in the forward pass.

    Example:
        >>> [round(rate_for(error, 280), 4) for error in (0.0, 0.012, 0.225, 0.9, 5.0)]
        [0.0005, 0.0018, 0.0045, 0.018, 0.02]
        >>> [round(rate_for(0.07, steps), 4) for steps in (10, 280, 1800)]
        [0.002, 0.0042, 0.01]
        >>> [round(rate_for(error, 280, rounded=True), 4) for error in (0.0, 0.225, 0.9)]
        [0.001, 0.0023, 0.005]
    """
    if rounded:
        per_error, least, most = _ROUNDED_RATE_PER_ERROR, _LEAST_ROUNDED_RATE, _LARGEST_ROUNDED_RATE
    else:
        per_error, most = _RATE_PER_ERROR, _LARGEST_RATE
        least = min(max(_RATE_PER_ROOT_OF_STEPS * math.sqrt(steps), _LEAST_RATE), _MIDDLE_RATE)
        if error is not None:
            least = min(least, max(_MOST_PER_ERROR * error, _SMALLEST_RATE))
    wanted = most if error is None else per_error * error
    return min(max(wanted, least), most)


_FEATURES_TIMES_STEPS, _LEAST_FEATURES, _MOST_FEATURES = 4e5, 30.0, 200.0


def feature_weight(steps: int) -> float:
    """Return how much the features' error counts beside the outputs' loss at the highest rate.

    It falls with the rate. A teacher that was trained on the same images is too sure of them: its
    answers tell less of what it computes than its features do. The shorter a training is, the more
    it gains by them; in a long one they hold back a student that cannot compute them all. In 1,800
    steps 300 was better than 90, and that better than 30; in 10,000 steps 30 was better than 90.

    Args:
        steps: How many are taken.

    Example:
        >>> [feature_weight(steps) for steps in (500, 2500, 5000, 20_000)]
        [200.0, 160.0, 80.0, 30.0]
    """
    return min(max(_FEATURES_TIMES_STEPS / max(steps, 1), _LEAST_FEATURES), _MOST_FEATURES)


def share_of_rate(number: int, total: int, warmup: float = WARMUP) -> float:
    """Return the share of the highest rate: a linear rise, then a cosine to zero.

    Args:
        number: Of the step, from 0.
        total: How many steps are taken.
        warmup: The share of the steps in which the rate rises.
    """
    warm = max(int(warmup * total), 1) if warmup else 0
    if number < warm:
        return (number + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (number - warm) / max(total - warm, 1)))


def size_of(variable: Any) -> float:
    """Return the root mean square of a variable, never zero.

    Args:
        variable: A Keras variable.
    """
    values = np.asarray(variable).astype(np.float64)
    least = _SMALLEST if values.ndim > 1 else _SMALLEST_BIAS
    return max(float(np.sqrt(np.mean(values**2))), least)
