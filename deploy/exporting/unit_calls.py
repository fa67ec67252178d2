"""Vectors that a network divides by their norm: ``x / sqrt(sum(x²))`` and its like.

In int8 a norm may round to 0, and LiteRT ends at a division by 0. TFLite's L2_NORMALIZATION, which
TensorFlow's converter makes of one form alone, divides inside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

_SMALL = 1e-3
"""What keeps a norm from being 0 is no larger."""
_LEAST = 1e-24
"""The square of the least norm that Keras divides by."""
_REPEATS = frozenset(["Tile", "BroadcastTo", "Identity"])
"""Operations that write a norm once for each value."""
_GUARDS = frozenset(["Maximum", "AddV2"])
"""Operations that keep a norm from being 0."""


def unit_calls(tf: Any) -> Iterator[tuple[Any, str, Callable[..., Any]]]:
    """Yield modules, names of functions in them that may divide by a norm, and what stands for it.

    Args:
        tf: TensorFlow.
    """
    divide, multiply = tf.divide, tf.multiply

    def divided(x: Any, y: Any, name: str | None = None) -> Any:
        axes = _norm_of(tf, x, y, root="Sqrt", guards=_GUARDS)
        return divide(x, y, name=name) if axes is None else _unit(tf, x, axes)

    def multiplied(x: Any, y: Any, name: str | None = None) -> Any:
        for vector, inverse in ((x, y), (y, x)):
            axes = _norm_of(tf, vector, inverse, root="Rsqrt", guards=frozenset(["Minimum"]))
            if axes is not None:
                return _unit(tf, vector, axes)
        return multiply(x, y, name=name)

    yield tf, "divide", divided
    yield tf, "multiply", multiplied


def _norm_of(
    tf: Any, x: Any, norm: Any, *, root: str, guards: frozenset[str]
) -> tuple[int, ...] | None:
    """Return the axes of which a value is the norm of x, or its inverse; None where it is not."""
    try:
        size, maker, vector = tf.get_static_value(x), norm.op, x.op
    except AttributeError:  # computed eagerly, or a number
        return None
    if size is not None:
        return None
    while maker.type in _REPEATS:
        maker = maker.inputs[0].op
    maker = _unguarded(tf, maker, guards)
    if maker.type != root:
        return None
    total = _unguarded(tf, maker.inputs[0].op, _GUARDS)
    if total.type != "Sum" or not total.get_attr("keep_dims"):
        return None
    square = total.inputs[0].op
    same = [one.op is vector and one.value_index == x.value_index for one in square.inputs]
    if square.type not in ("Square", "Mul") or not all(same):
        return None
    axes = tf.get_static_value(total.inputs[1])
    if axes is None or x.shape.rank is None:
        return None
    return tuple(sorted({int(axis) % x.shape.rank for axis in np.ravel(axes)}))


def _unguarded(tf: Any, maker: Any, guards: frozenset[str]) -> Any:
    """Return what makes a value that a small constant, or a large one, is a bound of."""
    if maker.type not in guards:
        return maker
    for one, other in (maker.inputs, reversed(maker.inputs)):
        bound = tf.get_static_value(other)
        if bound is not None and bound.size == 1:
            far = float(np.ravel(bound)[0])
            known = far >= 1 / _SMALL if maker.type == "Minimum" else 0 <= far <= _SMALL
            return one.op if known else maker
    return maker


def _unit(tf: Any, x: Any, axes: tuple[int, ...]) -> Any:
    """Divide vectors along some axes by their norms, in the form that the converter knows."""
    others = [axis for axis in range(x.shape.rank) if axis not in axes]
    order = [*others, *axes]
    moved = x if order == sorted(order) else tf.transpose(x, order)
    shape = tf.shape(moved)
    if len(axes) > 1:
        moved = tf.reshape(moved, tf.concat([shape[: len(others)], [-1]], axis=0))
    total = tf.reduce_sum(tf.square(moved), axis=[-1], keepdims=True)
    made = moved * tf.math.rsqrt(tf.maximum(total, _LEAST))
    if len(axes) > 1:
        made = tf.reshape(made, shape)
    return made if order == sorted(order) else tf.transpose(made, np.argsort(order))
