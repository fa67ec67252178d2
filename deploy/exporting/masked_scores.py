"""Attention and softmax with a mask, in forms whose scores can be quantized.

Keras puts what is masked at -2e38: a scale that leaves nothing of the other scores, and with which
XNNPACK ends the process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dsconvert.base.errors import require

_OF_HEADS = 4
"""Axes of what attention along one axis reads: samples, positions, heads, features."""
_MASKED = -30.0
"""The logarithm of what a softmax gives, relative to the largest, where its input is masked."""


def masked_softmax(layer: Any, given: Callable[..., Any], x: Any, mask: Any = None) -> Any:
    """Put what is masked a little below the rest."""
    if mask is None:
        return given(x)
    return _ops().where(_of_bools(mask), _shares(layer, x, mask), 0.0)


def _ops() -> Any:
    return require("keras", "keras", "to export Keras models").ops


def _of_bools(mask: Any) -> Any:
    return mask if "bool" in str(mask.dtype) else mask > 0.5


def _shares(layer: Any, x: Any, mask: Any) -> Any:
    """Return a softmax of what the mask keeps; of all alike where it keeps nothing."""
    ops, axes = _ops(), tuple(int(axis) for axis in np.reshape(layer.axis, -1))
    below = _below(x, _of_bools(mask), axes)
    if len(axes) == 1:
        return ops.softmax(below, axis=axes[0])
    powers = ops.exp(below)
    return powers / ops.sum(powers, axis=axes, keepdims=True)


def _below(x: Any, kept: Any, axes: tuple[int, ...]) -> Any:
    """Return scores less the largest that is kept, and what is not kept below all of these."""
    ops = _ops()
    least = ops.min(x, axis=axes, keepdims=True)
    largest = ops.max(ops.where(kept, x, least), axis=axes, keepdims=True)
    return ops.where(kept, x - largest, _MASKED)


def scored_attention(
    layer: Any,
    given: Callable[..., Any],
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any = None,
    training: Any = None,
    return_attention_scores: bool | None = None,
    **causal: Any,
) -> Any:
    """Let attention with a mask compute its scores, and take their softmax by a layer.

    The operation for all of it puts masked scores at -2e38, too, and gives the mean of all values
    where nothing is kept.
    """
    wanted = return_attention_scores
    told = {} if wanted is None else {"return_attention_scores": wanted}
    masked = attention_mask is not None or causal.get("use_causal_mask", False)
    dropout = getattr(layer, "_dropout", None) or getattr(layer, "dropout", 0.0)
    before = getattr(layer, "_return_attention_scores", None)
    if not masked or dropout or wanted or before or len(query.shape) != _OF_HEADS:
        return given(query, key, value, attention_mask, training, **told, **causal)
    softmax = layer._softmax
    kept = vars(softmax).get("call")
    object.__setattr__(softmax, "call", lambda x, mask=None: _shares(softmax, x, mask))
    if wanted is None:  # GroupedQueryAttention keeps the wish of a call
        layer._return_attention_scores = True
    else:
        told = {"return_attention_scores": True}
    try:
        return given(query, key, value, attention_mask, training, **told, **causal)
    finally:
        if kept is None:
            object.__delattr__(softmax, "call")
        else:
            object.__setattr__(softmax, "call", kept)
        if wanted is None:
            layer._return_attention_scores = before


def masked_logits(tf: Any) -> Callable[..., Any]:
    """Return what puts masked scores a little below the rest, in `keras.ops.dot_product_attention`.

    Keras calls it with the scores, (n, heads, T, S), before their softmax.
    """

    def below(logits: Any, mask: Any, is_causal: bool) -> Any:
        if mask is None and not is_causal:
            return logits
        kept = tf.constant(True) if mask is None else mask
        if is_causal:
            square = tf.ones(tf.shape(logits)[2:], tf.bool)
            kept = tf.logical_and(kept, tf.linalg.band_part(square, -1, 0))
        return _below(logits, kept, (-1,))

    return below
