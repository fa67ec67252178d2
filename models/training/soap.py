"""SOAP: Adam in the eigenbasis of Shampoo's preconditioners (Vyas et al., arXiv:2409.11321).

The channels inside a block are coordinates that nothing outside sees: the factors (A, B) and
(A R, R⁻¹ B) compute the same. Adam's step depends on which of them the fit has found, and SOAP's on
the gradients' own directions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dsconvert.base.predictor import Array

from .step_sizes import size_of

MOMENTUM, MEMORY = 0.9, 0.95
"""Shares of the old mean of gradients, and of the old mean of their squares and products."""
_EVERY = 10
"""Steps from one change of the eigenbasis to the next."""
_LARGEST = 1024
"""The side of a matrix above which that side is left as it is."""
_EPSILON = 1e-8
_LEAST = 1e-4
"""Share of the gradients' root mean square below which a direction counts as rounding noise."""
_RIDGE = 1e-2
"""Share of the mean eigenvalue that is added to all: where the gradients have no part, rounding
would choose the basis, and two runs that differ by it would go apart."""


@dataclass(frozen=True)
class _Kept:
    """What is known of one variable.

    Attributes:
        size: The unit of its steps.
        shape: It as a matrix (m, n), inputs before outputs; of a vector its own shape.
        mean: Of the gradients.
        squares: Of the gradients in the eigenbasis.
        products: Mean of G Gᵀ, (m, m), and of Gᵀ G, (n, n); None for a side that is left.
        bases: The eigenvectors of these, as columns.
    """

    size: float
    shape: tuple[int, ...]
    mean: Any
    squares: Any
    products: tuple[Any, Any]
    bases: tuple[Any, Any]


def relative_soap(variables: Sequence[Any]) -> Any:
    """Return a Keras optimizer whose rate is a share of each variable's root mean square.

    The first step only looks at the gradients.

    Args:
        variables: What is trained; it is built for these.

    Example:
        >>> import keras
        >>> square = keras.Variable([[3.0, 0.0], [0.0, 3.0]])
        >>> optimizer = relative_soap([square])
        >>> optimizer.learning_rate = 0.01
        >>> for _ in range(2):
        ...     optimizer.apply([square.value], [square])
        >>> [round(float(value), 3) for value in keras.ops.diagonal(square)]
        [2.979, 2.979]
    """
    import keras

    ops = keras.ops

    class RelativeSoap(keras.optimizers.Optimizer):  # type: ignore[misc]
        """SOAP with one factor per variable."""

        def build(self, variables: Sequence[Any]) -> None:
            """Make what is kept of each variable, and take the sizes as they are now."""
            super().build(variables)
            self.kept = [self._kept_of(variable) for variable in variables]

        def _kept_of(self, variable: Any) -> _Kept:
            shape = _as_matrix(tuple(variable.shape))
            turned = [n if n <= _LARGEST else None for n in shape] if len(shape) == 2 else []
            left, right = turned or (None, None)
            return _Kept(
                size_of(variable),
                shape,
                self.add_variable(shape, name="mean"),
                self.add_variable(shape, name="squares"),
                (self._square(left, "zeros"), self._square(right, "zeros")),
                (self._square(left, "identity"), self._square(right, "identity")),
            )

        def _square(self, side: int | None, initializer: str) -> Any:
            return None if side is None else self.add_variable((side, side), initializer)

        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            """Move one variable."""
            kept = self.kept[self._get_variable_index(variable)]
            slope = ops.reshape(ops.cast(gradient, "float32"), kept.shape)
            number = self.iterations
            self._look(kept, slope, number)
            kept.mean.assign(MOMENTUM * kept.mean + (1 - MOMENTUM) * slope)
            turned = ops.square(_turned(ops, slope, kept.bases))
            # The first gradients are seen before there is a basis.
            share = ops.where(number > 0, MEMORY, 1.0)
            kept.squares.assign(share * kept.squares + (1 - share) * turned)
            count = ops.cast(number, "float32")
            mean = _turned(ops, kept.mean / (1 - MOMENTUM ** (count + 1)), kept.bases)
            squares = kept.squares / (1 - MEMORY ** ops.maximum(count, 1.0))
            floor = _LEAST * ops.sqrt(ops.mean(squares)) + _EPSILON
            step = _turned(ops, mean / (ops.sqrt(squares) + floor), kept.bases, back=True)
            rate = ops.cast(learning_rate, "float32") * kept.size
            step = ops.where(number > 0, rate * step, 0.0)
            variable.assign_sub(ops.cast(ops.reshape(step, variable.shape), variable.dtype))

        def _look(self, kept: _Kept, slope: Any, number: Any) -> None:
            """Take a gradient into the products."""
            share = ops.where(number > 0, MEMORY, 0.0)
            for side, product in zip((slope, ops.transpose(slope)), kept.products, strict=False):
                if product is not None:
                    new = ops.matmul(side, ops.transpose(side))
                    product.assign(share * product + (1 - share) * new)

        def apply(self, grads: Any, trainable_variables: Any = None) -> None:
            """Move all variables, and turn the bases after the products now and then."""
            super().apply(grads, trainable_variables)
            number = self.iterations - 1
            ops.cond(
                number % _EVERY == 0,
                lambda: ops.cond(
                    number == 0, lambda: self._turn(_eigenvectors), lambda: self._turn(_nearer)
                ),
                lambda: 0,
            )

        def _turn(self, turned: Callable[[Any, Any], Any]) -> int:
            """Replace all bases in one place: each branch of a graph costs time to draw."""
            for kept in self.kept:
                for product, basis in zip(kept.products, kept.bases, strict=True):
                    if product is not None:
                        basis.assign(turned(product.value, basis.value))
            return 0

    optimizer = RelativeSoap(0.0, name="soap")
    optimizer.build(variables)
    return optimizer


def _as_matrix(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of a kernel as a matrix: inputs × outputs, or taps × channels."""
    if len(shape) < 2:
        return shape
    if len(shape) == 4 and shape[-1] == 1:  # depthwise (kh, kw, C, 1)
        return shape[0] * shape[1], shape[2]
    return math.prod(shape[:-1]), shape[-1]


def _turned(ops: Any, matrix: Any, bases: tuple[Any, Any], *, back: bool = False) -> Any:
    """Return a matrix in the bases' coordinates, or from these."""
    left, right = bases
    if left is not None:
        matrix = ops.matmul(left if back else ops.transpose(left), matrix)
    if right is not None:
        matrix = ops.matmul(matrix, ops.transpose(right) if back else right)
    return matrix


def _eigenvectors(product: Any, basis: Any) -> Any:
    """Return the eigenvectors of a product as columns, the largest first."""
    import tensorflow as tf

    # Of equal eigenvalues any basis would do: with ridges of several heights it is one of them.
    return tf.reverse(tf.linalg.eigh(_ridged(product, np.linspace(1, 2, product.shape[0])))[1], [1])


def _nearer(product: Any, basis: Any) -> Any:
    """Return the basis after a step of the power iteration towards the eigenvectors."""
    import tensorflow as tf

    return tf.linalg.qr(tf.matmul(_ridged(product, np.ones(product.shape[0])), basis))[0]


def _ridged(product: Any, heights: Array) -> Any:
    """Add to the diagonal. Keras' own trace and linspace take long to draw into a graph."""
    import tensorflow as tf

    diagonal = tf.linalg.diag_part(product)
    ridge = _RIDGE * tf.reduce_mean(diagonal) + 1e-30
    return tf.linalg.set_diag(product, diagonal + ridge * np.float32(heights))
