"""How large a step is: a share of each tensor's size, which rises and falls from step to step.

Steps of one size for all tensors first damage what was fitted: the kernels of a rewritten network
differ a hundredfold in their size.
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
