"""Averages of weights over the last steps (Polyak and Juditsky, 1992).

Each step is made of one batch, and so are the moving statistics of norms: the average over many
answers more as the teacher does than the last of them. It reaches back over a tenth of the steps
taken (polynomial decay: Shamir and Zhang, arXiv:1212.1824), so that runs of any length need no
setting.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dsconvert.base.predictor import Array

_REACH = 0.1
"""Share of the steps taken that the average reaches back over."""


class Averages:
    """The averages of variables; what is no fraction, as a count, is the last value.

    Args:
        variables: Keras variables; the averages begin at what they are now.

    Attributes:
        variables: The averages.

    Example:
        >>> import keras
        >>> weight = keras.Variable([0.0])
        >>> averages = Averages([weight])
        >>> for number in range(20):
        ...     _ = weight.assign([float(number)])
        ...     averages.take(number)
        >>> [round(float(value[0]), 1) for value in averages.values()]
        [17.3]
    """

    def __init__(self, variables: Sequence[Any]) -> None:
        import keras
        import tensorflow as tf

        self._of = list(variables)
        self.variables = [  # Keras would take over a variable's own value
            keras.Variable(np.asarray(v).copy(), dtype=v.dtype, trainable=False) for v in self._of
        ]
        self._move = tf.function(self._moved, autograph=False, jit_compile=False)

    def take(self, number: int) -> None:
        """Take in the variables as they are now.

        Args:
            number: How many steps were taken before.
        """
        import tensorflow as tf

        self._move(tf.constant(1 / (1 + _REACH * number), tf.float32))

    def values(self) -> list[Array]:
        """Return the averages."""
        return [np.asarray(variable) for variable in self.variables]

    def _moved(self, share: Any) -> None:
        import tensorflow as tf

        for average, variable in zip(self.variables, self._of, strict=True):
            new = variable.value
            if new.dtype.is_floating:
                new = average.value + tf.cast(share, new.dtype) * (new - average.value)
            average.assign(new)
