"""Masks that a network writes out itself: ``where(mask, scores, -1e9)``, ``scores + mask``.

The range of what they give would be that of the mask, and leave int8 scores no steps. What is
masked is put a little below the smallest score of its sample instead, which a softmax along any
axis gives as little.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from dsconvert.base.predictor import Array

_FAR = -1e4
"""What masks in half precision put in a score's place; others put less."""
_ADDED = -30.0
"""What a mask of this and 0 takes off a score: e^-30 is less than a rounding of float32."""
_MARGIN = 16.0
"""Between the smallest score and what is masked: a softmax gives it 1e-7, and int8 has 1/256."""
_SOME = 0.1
"""A mask of 0 and 1 is one from there on, however it is rounded."""
_MOVES = frozenset(
    ["Reshape", "ExpandDims", "Squeeze", "Identity", "BroadcastTo", "Cast", "Transpose", "Tile",
     "StridedSlice"]
)  # fmt: skip
"""Operations that give a mask another form."""
_DEEPEST = 16
"""Operations behind each other that a mask is looked for in."""
_JOINS = frozenset(["Minimum", "Maximum", "AddV2", "SelectV2", "Select"])
"""Operations that make a mask of others, or of a choice between a mask and 0."""


def masking_calls(tf: Any) -> Iterator[tuple[Any, str, Callable[..., Any]]]:
    """Yield modules, names of functions in them that put a mask on scores, and what stands for it.

    Args:
        tf: TensorFlow.
    """
    where, add, add_row, multiply = tf.where, tf.add, tf.nn.bias_add, tf.multiply

    def below(scores: Any) -> Any:
        axes = list(range(1, scores.shape.rank))
        return tf.reduce_min(scores, axis=axes, keepdims=True) - _MARGIN

    def chosen(condition: Any, x: Any = None, y: Any = None, name: str | None = None) -> Any:
        for scores, mask, kept in ((x, y, True), (y, x, False)):
            if _are_scores(tf, scores) and _is_far(_static(tf, mask)):
                choice = condition if kept else tf.logical_not(condition)
                return where(choice, scores, below(scores), name=name)
        return where(condition, x, y, name=name)

    def multiplied(x: Any, y: Any, name: str | None = None) -> Any:
        """Choose between 0 and what is far: of a product int8 keeps no step of the mask itself."""
        for mask, far in ((x, y), (y, x)):
            value = _static(tf, far)
            if value is not None and value.size == 1 and _is_far(value) and _is_float(tf, mask):
                return where(mask > _SOME, far, tf.zeros_like(far), name=name)
        return multiply(x, y, name=name)

    def masked(x: Any, y: Any, name: str | None = None) -> Any:
        """Return the sum of two values of which one is a mask; None where none is."""
        for scores, mask in ((x, y), (y, x)):
            if not _are_scores(tf, scores):
                continue
            value = _static(tf, mask)
            kept = None if value is None else _kept_by(value)
            if value is not None and kept is not None:
                rest = np.where(kept, value, 0).astype(np.float32)
                moved = add(scores, rest) if rest.any() else scores
                return where(kept, moved, below(moved), name=name)
            if _is_mask(tf, mask):
                return where(_kept(tf, mask), scores, below(scores), name=name)
        return None

    def added(x: Any, y: Any, name: str | None = None) -> Any:
        made = masked(x, y, name)
        return add(x, y, name=name) if made is None else made

    def row_added(
        value: Any, bias: Any, data_format: str | None = None, name: str | None = None
    ) -> Any:
        """Add what is the same in every row: Keras calls it for a mask of one sample, too."""
        last = data_format is None or not data_format.startswith("NC")
        made = masked(value, bias, name) if last else None
        return add_row(value, bias, data_format, name) if made is None else made

    yield tf, "where", chosen
    yield tf, "multiply", multiplied
    yield tf, "add", added
    yield tf.nn, "bias_add", row_added


def _static(tf: Any, x: Any) -> Array | None:
    """Return a value that is known while a model is traced, a plain number too; None for others."""
    value = tf.get_static_value(x)
    return None if value is None else np.asarray(value)


def _is_float(tf: Any, x: Any) -> bool:
    """Tell whether a value is computed, in float32."""
    floats = tf.is_tensor(x) and x.dtype == tf.float32
    return bool(floats and _static(tf, x) is None)


def _are_scores(tf: Any, x: Any) -> bool:
    """Tell whether a value may be masked: computed, of samples, and no mask itself."""
    if not _is_float(tf, x) or x.shape.rank is None or x.shape.rank < 2:
        return False
    return not _is_mask(tf, x)


def _is_far(value: Array | None) -> bool:
    floats = value is not None and value.dtype.kind == "f" and value.size > 0
    return bool(floats and (np.asarray(value) <= _FAR).all())


def _kept_by(value: Array) -> Array | None:
    """Tell what a constant that is added to scores keeps of them; None where it is no mask."""
    if value.dtype.kind != "f":
        return None
    kept = value > _FAR
    if kept.any() and not kept.all():
        return kept
    found = np.unique(value)
    is_square = value.ndim > 1 and min(value.shape[-2:]) > 1
    if is_square and found.size == 2 and found[1] == 0 and found[0] <= _ADDED:
        return np.asarray(value == 0)
    return None


def _is_mask(tf: Any, x: Any, depth: int = 0) -> bool:
    """Tell whether a value is computed of conditions and constants alone, of which some are far."""
    value = _static(tf, x)
    if value is not None:
        return value.dtype.kind == "f" and bool((value <= _FAR).any())
    try:
        maker = x.op
    except AttributeError:  # computed eagerly
        return False
    if depth > _DEEPEST or not maker.inputs:
        return False
    if maker.type in _MOVES:
        return _is_mask(tf, maker.inputs[0], depth + 1)
    if maker.type not in _JOINS:
        return False
    joined = maker.inputs[-2:]  # a choice has its condition first
    computed = [one for one in joined if _static(tf, one) is None]
    if any(one.op.type not in _MOVES | _JOINS for one in computed):
        return False
    rest = [one for one in joined if _static(tf, one) is not None]
    values = [value for one in rest if (value := _static(tf, one)) is not None]
    if not all(map(_is_plain, values)):
        return False
    found = [_is_mask(tf, one, depth + 1) for one in computed]
    return all(found) and (bool(found) or any(_is_mask(tf, one) for one in rest))


def _is_plain(value: Array) -> bool:
    """Tell whether a constant adds nothing to what it keeps."""
    return bool(((value <= _FAR) | (value == 0)).all())


def _kept(tf: Any, mask: Any) -> Any:
    """Return what a mask keeps, as bools: beside -1e9 int8 has no other scores to compare."""
    value = _static(tf, mask)
    if value is not None:
        return tf.constant(value > _FAR / 2)
    maker = mask.op
    if maker.type in _MOVES:
        kept = _kept(tf, maker.inputs[0])
        return kept if maker.type == "Cast" else _moved(tf, maker, kept)
    first, second = (_kept(tf, one) for one in maker.inputs[-2:])
    if maker.type == "Maximum":
        return tf.logical_or(first, second)
    if maker.type in ("Minimum", "AddV2"):
        return tf.logical_and(first, second)
    condition = maker.inputs[0]
    chosen = tf.logical_and(condition, first)
    return tf.logical_or(chosen, tf.logical_and(tf.logical_not(condition), second))


def _moved(tf: Any, maker: Any, kept: Any) -> Any:
    """Give bools the form that an operation gives a mask."""
    attributes = {name: maker.node_def.attr[name] for name in maker.node_def.attr}
    attributes["T"] = type(attributes["T"])(type=tf.bool.as_datatype_enum)
    inputs = [kept, *maker.inputs[1:]]
    graph = tf.compat.v1.get_default_graph()
    return graph.create_op(maker.type, inputs, [tf.bool], attrs=attributes).outputs[0]
