"""Adam whose steps are shares of each tensor's size, and their rate from step to step.

Steps of one size for all tensors first damage what was fitted: the kernels of a rewritten network
differ a hundredfold in their size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

WARMUP = 0.05
"""Share of all steps in which the rate rises."""
_SMALLEST = 1e-3
"""A kernel of zeros would otherwise not move at all."""
_SMALLEST_BIAS = 1e-2
"""What is added behind a kernel often begins at zero, and ends at a share of the outputs."""


def relative_adam(variables: Sequence[Any]) -> Any:
    """Return a Keras optimizer whose rate is a share of each variable's root mean square.

    The step of Adam (arXiv:1412.6980) for the variable v is multiplied by rms(v) as v is now.

    Args:
        variables: What is trained; it is built for these.

    Example:
        >>> import keras
        >>> large, small = keras.Variable([[100.0]]), keras.Variable([[1.0]])
        >>> optimizer = relative_adam([large, small])
        >>> optimizer.learning_rate = 0.01
        >>> optimizer.apply([large.value, small.value], [large, small])
        >>> [round(float(v[0, 0]), 4) for v in (large, small)]
        [99.0, 0.99]
    """
    import keras

    class RelativeAdam(keras.optimizers.Adam):  # type: ignore[misc]
        """Adam with one factor per variable."""

        def build(self, variables: Sequence[Any]) -> None:
            """Make the moments, and take the sizes as they are now."""
            super().build(variables)
            self.sizes = [size_of(variable) for variable in variables]

        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            """Move one variable."""
            size = self.sizes[self._get_variable_index(variable)]
            super().update_step(gradient, variable, learning_rate * size)

    optimizer = RelativeAdam(0.0)
    optimizer.build(variables)
    return optimizer


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
