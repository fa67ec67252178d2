"""The error of an output in numbers to choose by, each group of its channels at its own scale."""

from __future__ import annotations

import math

import numpy as np

from ..predictor import Array
from .channel_axis import channel_axis
from .channel_groups import are_scores, channels_last, scale_groups
from .channel_sums import Float
from .class_counts import is_distribution
from .defect import Channels

_SMALL = 1 / 256
"""Share of the output's largest value below which a few of many channels do not count."""
_FEW_CHANNELS = 0.05
_NOTHING = 1e-6


def judged_groups(reference: Array, axis: int | None = None) -> list[Channels]:
    """Find the groups of channels of a reference whose errors count.

    A group counts unless the reference holds rounding noise there, or the group is a small part of
    many channels and far smaller than the others, as features are that hardly ever fire. Class
    probabilities are one group, rare classes included.

    Args:
        reference: (n, ...), finite.
        axis: Which axis holds the channels; by default what the output looks like.

    Returns:
        The channels of each group; none where the reference is zero.
    """
    last = channels_last(reference, channel_axis(reference) if axis is None else axis)
    channels = last.shape[-1]
    flat = last.reshape(-1, channels)
    if not len(flat):
        return []
    low, high = (bound.astype(np.float64) for bound in (flat.min(axis=0), flat.max(axis=0)))
    peak = np.maximum(high, -low)
    positions = len(flat) // len(reference)
    found = scale_groups(peak, len(flat), positions, is_distribution(flat))
    top = float(peak.max())
    return [
        group
        for group in found
        if (size := float(peak[group].max())) > _NOTHING * top
        and (
            size >= _SMALL * top
            or len(group) >= _FEW_CHANNELS * channels
            or are_scores(float(low[group].min()), float(high[group].max()))
        )
    ]


def group_noise(reference: Array, other: Array) -> list[float]:
    """Compute Σ (y − ŷ)² / Σ y² of each group of channels of an output.

    Args:
        reference: y, (n, ...).
        other: ŷ, of the same shape.

    Returns:
        One number for each group; infinite where a value is not finite, and where the reference is
        zero and the other is not.
    """
    if not np.isfinite(other).all():
        return [math.inf]
    axis = channel_axis(reference)
    grouped = judged_groups(reference, axis)
    if len(grouped) <= 1:
        return [_ratio(reference, other)]
    r, y = (channels_last(array, axis) for array in (reference, other))
    return [_ratio(r[..., group], y[..., group]) for group in grouped]


def _ratio(reference: Array, other: Array) -> float:
    r: Float = np.asarray(reference, np.float64)
    noise, signal = float(np.sum((r - other) ** 2)), float(np.sum(r * r))
    if signal == 0:
        return 0.0 if noise == 0 else math.inf
    return noise / signal
