"""The free scale of every channel between the two kernels of a pair.

A pair has nothing in between: z → s·z per channel, with the first kernel multiplied by s and the
second divided by it, changes nothing in exact arithmetic. Stored in 8 bits with one scale for all
of z it does: a channel of a tenth of the range gets a tenth of the steps. With s = 1 / range(z)
all channels use the same range.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dsconvert.base.predictor import Array

from ..types import Float, as_float


@dataclass
class Ranges:
    """The least and the greatest value of each channel, (C,), and zero: padding and int8 have it.

    Attributes:
        low: At most 0.
        high: At least 0.
    """

    low: Float
    high: Float

    @classmethod
    def none(cls, channels: int) -> Ranges:
        """Of no data: all zero."""
        return cls(np.zeros(channels), np.zeros(channels))

    def add(self, values: Array, axis: int) -> None:
        """Take in an array whose ``axis`` holds the channels."""
        others = tuple(i for i in range(values.ndim) if i != axis % values.ndim)
        self.low = np.minimum(self.low, as_float(values.min(axis=others)))
        self.high = np.maximum(self.high, as_float(values.max(axis=others)))

    def scales(self) -> Float:
        """Return what each channel is multiplied by, (C,), so that all have the same range.

        Their geometric mean is 1; a channel that is always 0, or not finite, is left as it is.
        """
        width = self.high - self.low
        usable = np.isfinite(width) & (width > 0)
        scales = np.ones(len(width))
        if usable.any():
            logs = np.log(width[usable])
            scales[usable] = np.exp(logs.mean() - logs)
        return scales

    def spread(self) -> float:
        """The largest range over the median one: what there is to gain; 1 if there is nothing."""
        width = self.high - self.low
        width = width[np.isfinite(width) & (width > 0)]
        return float(width.max() / np.median(width)) if width.size else 1.0


def move(first: Array, second: Array, scales: Float, axes: tuple[int, int]) -> tuple[Array, Array]:
    """Both kernels of a pair with the channels between them scaled.

    Args:
        first: The kernel that makes the channels.
        second: The kernel that reads them.
        scales: (C,), positive.
        axes: The axis of each kernel that holds these channels. Where a depthwise kernel has m
            outputs for each of its inputs, it may hold them in this axis and the next, (C / m, m),
            or each channel m times in a row, (C·m,).

    Returns:
        The kernels in the types that they had.
    """
    made = as_float(first) * _along(scales, first.shape, axes[0])
    read = as_float(second) / _along(scales, second.shape, axes[1])
    return made.astype(first.dtype), read.astype(second.dtype)


def _along(scales: Float, shape: tuple[int, ...], axis: int) -> Float:
    sizes = [1] * len(shape)
    sizes[axis] = shape[axis]
    if shape[axis] < len(scales):
        sizes[axis + 1] = len(scales) // shape[axis]
    if shape[axis] > len(scales):
        scales = np.repeat(scales, shape[axis] // len(scales))
    return scales.reshape(sizes)


def note(ranges: Sequence[Ranges]) -> str:
    """Tell what the equalization of pairs with these ranges did."""
    spread = max(one.spread() for one in ranges)
    pairs = f"{len(ranges)} pair{'s' if len(ranges) > 1 else ''}"
    return (
        f"cross-layer equalization: the channels inside {pairs} have equal ranges; before, the "
        f"widest had {spread:.1f} times the range of its pair's median channel"
    )
