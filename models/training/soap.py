"""SOAP: Adam in the eigenbasis of Shampoo's preconditioners (Vyas et al., arXiv:2409.11321).

The channels inside a block are coordinates that nothing outside sees: the factors (A, B) and
(A R, R⁻¹ B) compute the same. Adam's step depends on which of them the fit has found, and SOAP's on
the gradients' own directions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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
            kept.squares.assign(MEMORY * kept.squares + (1 - MEMORY) * turned)
            count = ops.cast(number + 1, "float32")
            mean = _turned(ops, kept.mean / (1 - MOMENTUM**count), kept.bases)
            squares = kept.squares / (1 - MEMORY**count)
            floor = _LEAST * ops.sqrt(ops.mean(squares)) + _EPSILON
            step = _turned(ops, mean / (ops.sqrt(squares) + floor), kept.bases, back=True)
            rate = ops.cast(learning_rate, "float32") * kept.size
            step = ops.where(number > 0, rate * step, 0.0)
            variable.assign_sub(ops.cast(ops.reshape(step, variable.shape), variable.dtype))

        def _look(self, kept: _Kept, slope: Any, number: Any) -> None:
            """Take a gradient into the products, and turn the bases after them now and then."""
            for transposed, product, basis in zip(
                (False, True), kept.products, kept.bases, strict=True
            ):
                if product is None:
                    continue
                side = ops.transpose(slope) if transposed else slope
                new = ops.matmul(side, ops.transpose(side))
                share = ops.where(number > 0, MEMORY, 0.0)
                product.assign(share * product + (1 - share) * new)
                basis.assign(
                    ops.cond(
                        number % _EVERY == 0,
                        lambda p=product, b=basis: _eigenbasis(ops, p, b, number),
                        lambda b=basis: ops.convert_to_tensor(b),
                    )
                )

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


def _eigenbasis(ops: Any, product: Any, basis: Any, number: Any) -> Any:
    """Return the eigenvectors at first, later one step of the power iteration towards them."""
    size = product.shape[0]
    ridge = _RIDGE * ops.trace(product) / size + 1e-30
    uneven = ops.diag(ops.linspace(1.0, 2.0, size))  # of equal eigenvalues any basis would do
    return ops.cond(
        number == 0,
        lambda: ops.flip(ops.linalg.eigh(product + ridge * uneven)[1], axis=1),
        lambda: ops.linalg.qr(ops.matmul(product + ridge * ops.eye(size), basis))[0],
    )
