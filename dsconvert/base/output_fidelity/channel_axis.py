"""Which axis of an output holds its channels: classes, coordinates, colours.

Files of Keras and TFLite have it last, those of ONNX often second, and neither says which: the
sizes and the values do. Taken for the wrong one, boxes and scores would be judged as one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..predictor import Array

_SPREAD, _SPREAD_OF_MANY = 0.4, 1.0
"""How much more the logarithms of sizes must vary along axis 1 than along the last one where axis 1
holds the channels: where it is the shorter axis, and where it is the longer."""
_LONGER = 4
"""How much longer than the last an axis may be that holds the channels: positions are many."""
_SQUARE, _COLOURS, _SHORTEST = 3.0, 2.0, 0.2
"""What the sizes of a map say of an axis, in logarithms of values: that the others are equal, that
it is far shorter than they, or shorter."""
_FEW_COLOURS = 4
_FRAME, _PICTURE = 0.1, 8
"""Share of an axis' typical size that its ends stay below where a picture has a frame, and the
least size of such an axis."""
_MOST_BY_ROUGHNESS = 0.6
_SMOOTH = 0.15
"""Roughness up to which neighbours along an axis are pixels of a picture."""
_FEATURES = 1024
"""Up to as many values in a row, (n, 1, C), are channels; more are moments of a signal."""
_LOOKED_AT = 1 << 20


def channel_axis(reference: Array) -> int:
    """Find the axis of an output that holds its channels.

    Of (n, a) it is the last. Of more axes it is the last, or axis 1 as ONNX has it: along it the
    values differ otherwise than along those of the positions, in their sizes or from one to the
    next. Axes of size 1 hold nothing, except those of a picture of one colour.

    Args:
        reference: (n, ...).

    Example:
        >>> boxes_and_scores = np.random.default_rng(0).random((4, 15, 20, 84)) * 0.9
        >>> boxes_and_scores[..., :4] *= 640
        >>> channel_axis(boxes_and_scores), channel_axis(boxes_and_scores.transpose(0, 3, 1, 2))
        (3, 1)
    """
    last = reference.ndim - 1
    if reference.ndim < 3:
        return last
    long = [axis for axis in range(1, reference.ndim) if reference.shape[axis] > 1]
    if reference.ndim == 3 and len(long) < 2:
        return last if reference.shape[-1] == 1 or reference.shape[-1] <= _FEATURES else 1
    if len(long) < 2:
        return long[0] if long else last
    values = _looked_at(reference)
    if len(long) > 2:
        return _of_map(values, long)
    first, second = long
    if reference.ndim > 3 and second == first + 1 and not _holds_rows(values, first, second):
        return last if reference.shape[-1] == 1 else 1  # a picture of one colour
    return _of_rows(values, first, second)


def _of_rows(values: Array, first: int, last: int) -> int:
    """Tell which of two axes holds the channels, where the other one holds positions."""
    sizes = values.shape[first], values.shape[last]
    if sizes[0] > _LONGER * sizes[1]:
        return last
    rougher = _log_ratio(_roughness(values, first), _roughness(values, last))
    more = _spread(values, first) - _spread(values, last)
    more += float(np.clip(rougher, -_MOST_BY_ROUGHNESS, _MOST_BY_ROUGHNESS))
    return first if more > (_SPREAD if sizes[0] < sizes[1] else _SPREAD_OF_MANY) else last


def _of_map(values: Array, long: Sequence[int]) -> int:
    """Tell which axis of a map holds its channels: the one that is unlike those of positions."""
    frameless = [axis for axis in (long[0], long[-1]) if not _is_framed(values, axis)]
    if len(frameless) == 1:
        return frameless[0]
    spreads = {axis: _spread(values, axis) for axis in long}
    if len(long) > 3:
        second, most = sorted(spreads, key=lambda axis: spreads[axis])[-2:]
        if spreads[most] > spreads[second] + _SPREAD:
            return most
    first, last = long[0], long[-1]
    rough = {axis: _roughness(values, axis) for axis in long}
    unlike = {
        axis: min(
            abs(spreads[axis] - spreads[other]) + abs(_log_ratio(rough[axis], rough[other]))
            for other in long[1:-1]
        )
        for axis in (first, last)
    }
    for axis in unlike:
        unlike[axis] += _by_sizes(values.shape[axis], [values.shape[i] for i in long if i != axis])
    return first if unlike[first] > unlike[last] else last


def _is_framed(values: Array, axis: int) -> bool:
    """Tell whether both ends of an axis hold next to nothing, as those of a padded picture do."""
    peaks = _peaks(values, axis)
    if len(peaks) < _PICTURE:
        return False
    ends, inside = float(max(peaks[0], peaks[-1])), float(np.median(peaks[1:-1]))
    return ends < _FRAME * inside


def _by_sizes(size: int, others: Sequence[int]) -> float:
    """Tell how much the sizes of a map say that an axis holds the channels."""
    square = _SQUARE if len(set(others)) == 1 and size != others[0] else 0.0
    if size >= min(others):
        return square
    few = size <= _FEW_COLOURS and _FEW_COLOURS * size <= min(others)
    return square + (_COLOURS if few else _SHORTEST)


def _holds_rows(values: Array, first: int, last: int) -> bool:
    """Tell whether a plane, (n, 1, a, b), holds rows of channels rather than a picture."""
    smooth = all(_roughness(values, axis) < _SMOOTH for axis in (first, last))
    apart = abs(_spread(values, first) - _spread(values, last))
    return not smooth and apart > _SPREAD_OF_MANY


def _looked_at(reference: Array) -> Array:
    few = reference[: max(1, _LOOKED_AT // max(1, reference[:1].size))]
    return np.where(np.isfinite(few), few, 0.0).astype(np.float64)


def _peaks(values: Array, axis: int) -> Array:
    """Max |r| of each slice across an axis."""
    others = tuple(i for i in range(values.ndim) if i != axis)
    return np.asarray(np.abs(values).max(axis=others, initial=0.0))


def _spread(values: Array, axis: int) -> float:
    """Standard deviation of log max |r| along an axis; 0 where it has one size."""
    peaks = _peaks(values, axis)
    peaks = peaks[peaks > peaks.max(initial=0.0) * 1e-6]
    return float(np.std(np.log(peaks))) if len(peaks) > 1 else 0.0


def _roughness(values: Array, axis: int) -> float:
    """Mean square of the steps along an axis over twice the variance: 1 for noise."""
    variance = float(values.var())
    if variance <= 0 or values.shape[axis] < 2:
        return 1.0
    return float(np.mean(np.diff(values, axis=axis) ** 2)) / (2 * variance)


def _log_ratio(one: float, other: float) -> float:
    """Half the logarithm of a ratio, of which neither is taken for less than a thousandth."""
    return 0.5 * math.log(max(one, 1e-3) / max(other, 1e-3))
