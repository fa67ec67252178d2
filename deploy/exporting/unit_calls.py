"""Vectors that a network divides by their norm: ``x / sqrt(sum(x²))``, RMSNormalization and others.

In int8 a norm may round to 0, and LiteRT ends at a division by 0; a variance runs over several
powers of ten, of which one scale keeps the largest. TFLite's L2_NORMALIZATION, which TensorFlow's
converter makes of one form alone, divides inside.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

_SMALL = 1e-3
"""What keeps a norm from being 0 is no larger."""
_LEAST = 1e-24
"""The square of the least norm that Keras divides by."""
_NEGLIGIBLE = 1e-5
"""What is added to a mean of squares is left out up to that: vectors of 0.01 change by 5 %."""
_MOST = 256
"""Values whose root of a mean of squares is a norm. Each is about 1/√n, which has 128/√n steps: of
vectors of like size 96 lose 2 dB by that, 256 lose 4 and 384 lose 6, where those whose sizes differ
threefold (1σ) gain 8."""
_AXES = 4
"""That L2_NORMALIZATION takes."""
_REPEATS = frozenset(["Tile", "BroadcastTo", "Identity"])
"""Operations that write a norm once for each value."""
_GUARDS = frozenset(["Maximum", "AddV2"])
"""Operations that keep a norm from being 0."""


class _Norm(NamedTuple):
    """The root of a sum, or of a mean, of squares.

    Attributes:
        axes: Along which they are summed.
        mean: Whether it is of their mean.
        epsilon: What is added to the mean.
    """

    axes: tuple[int, ...]
    mean: bool = False
    epsilon: float = 0.0


def unit_calls(tf: Any) -> Iterator[tuple[Any, str, Callable[..., Any]]]:
    """Yield modules, names of functions in them that may divide by a norm, and what stands for it.

    Args:
        tf: TensorFlow.
    """
    divide, multiply = tf.divide, tf.multiply

    def divided(x: Any, y: Any, name: str | None = None) -> Any:
        norm = _norm_of(tf, x, y, root="Sqrt", guards=_GUARDS)
        return divide(x, y, name=name) if norm is None else _divided(tf, x, norm)

    def multiplied(x: Any, y: Any, name: str | None = None) -> Any:
        for vector, inverse in ((x, y), (y, x)):
            norm = _norm_of(tf, vector, inverse, root="Rsqrt", guards=frozenset(["Minimum"]))
            if norm is not None:
                return _divided(tf, vector, norm)
        return multiply(x, y, name=name)

    yield tf, "divide", divided
    yield tf, "multiply", multiplied


def rms_unit(tf: Any, x: Any, axes: tuple[int, ...], epsilon: float) -> Any | None:
    """Return x / √(mean of x² + epsilon) by a norm; None where it has too many values for that.

    Args:
        tf: TensorFlow.
        x: (n, ...).
        axes: Of the mean, not negative.
        epsilon: Beside the mean.
    """
    norm = _Norm(tuple(sorted(axes)), mean=True, epsilon=epsilon)
    return _divided(tf, x, norm) if _fits(x, norm) else None


def _norm_of(tf: Any, x: Any, norm: Any, *, root: str, guards: frozenset[str]) -> _Norm | None:
    """Return of what a value is the norm, or its inverse; None where it is not that of x."""
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
    guarded = maker.inputs[0].op
    total = _unguarded(tf, guarded, _GUARDS)
    if guarded.type == "AddV2" and _bound(tf, guarded) > _SMALL:
        inside = _computed(tf, guarded)
        total = inside if inside.type == "Mean" else total
    if total.type not in ("Sum", "Mean") or not total.get_attr("keep_dims"):
        return None
    square = total.inputs[0].op
    same = [one.op is vector and one.value_index == x.value_index for one in square.inputs]
    if square.type not in ("Square", "Mul") or not all(same):
        return None
    axes = tf.get_static_value(total.inputs[1])
    if axes is None or x.shape.rank is None:
        return None
    along = tuple(sorted({int(axis) % x.shape.rank for axis in np.ravel(axes)}))
    if total.type == "Sum":
        return _Norm(along)
    found = _Norm(along, True, 0.0 if guarded is total else _bound(tf, guarded))
    return found if _fits(x, found) else None


def _fits(x: Any, norm: _Norm) -> bool:
    """Tell whether a mean is of a known number of values, and of few."""
    count = _count(x, norm)
    return 0 not in norm.axes and count is not None and count <= _MOST


def _count(x: Any, norm: _Norm) -> int | None:
    """Return how many values a norm is of; None where that is free."""
    sizes = [x.shape[axis] for axis in norm.axes]
    return None if None in sizes else math.prod(sizes)


def _unguarded(tf: Any, maker: Any, guards: frozenset[str]) -> Any:
    """Return what makes a value that a small constant, or a large one, is a bound of."""
    if maker.type not in guards:
        return maker
    far = _bound(tf, maker)
    known = far >= 1 / _SMALL if maker.type == "Minimum" else 0 <= far <= _SMALL
    return _computed(tf, maker) if known else maker


def _computed(tf: Any, maker: Any) -> Any:
    """Return what makes the first input of an operation that is no constant."""
    computed = [one for one in maker.inputs if tf.get_static_value(one) is None]
    return computed[0].op if computed else maker


def _bound(tf: Any, maker: Any) -> float:
    """Return the number that an operation joins to a computed value; NaN for none."""
    for one in maker.inputs:
        bound = tf.get_static_value(one)
        if bound is not None and bound.size == 1:
            return float(np.ravel(bound)[0])
    return math.nan


def _divided(tf: Any, x: Any, norm: _Norm) -> Any:
    """Divide vectors by what was found of them."""
    count = _count(x, norm) if norm.mean else None
    if count is None:
        return _unit(tf, x, norm.axes)
    beside = math.sqrt(count * norm.epsilon) if norm.epsilon > _NEGLIGIBLE else 0.0
    return _unit(tf, x, norm.axes, beside) * math.sqrt(count)


def _unit(tf: Any, x: Any, axes: tuple[int, ...], beside: float = 0.0) -> Any:
    """Divide vectors along some axes by their norms, in the form that the converter knows.

    Args:
        tf: TensorFlow.
        x: (n, ...).
        axes: Of a vector.
        beside: One more value of each vector, for its norm alone.
    """
    others = [axis for axis in range(x.shape.rank) if axis not in axes]
    order = [*others, *axes]
    moved = x if order == sorted(order) else tf.transpose(x, order)
    shape = tf.shape(moved)
    rows, flat = shape[: len(others)], len(axes) > 1
    if len(others) >= _AXES:
        rows, flat = tf.stack([rows[0], tf.reduce_prod(rows[1:])]), True
    if flat:
        moved = tf.reshape(moved, tf.concat([rows, [-1]], axis=0))
    padded = beside > 0 or _is_difference(x)
    given = moved
    if padded:
        width = [[0, 0]] * (moved.shape.rank - 1) + [[0, 1]]
        moved = tf.pad(moved, width, constant_values=beside)
    total = tf.reduce_sum(tf.square(moved), axis=[-1], keepdims=True)
    made = moved * tf.math.rsqrt(tf.maximum(total, _LEAST))
    if padded:
        made = tf.slice(made, tf.zeros_like(tf.shape(given)), tf.shape(given))
    if flat:
        made = tf.reshape(made, shape)
    return made if order == sorted(order) else tf.transpose(made, np.argsort(order))


def _is_difference(x: Any) -> bool:
    """Tell whether the converter would join a value with its square, and know the form no more."""
    return getattr(getattr(x, "op", None), "type", "") == "Sub"
