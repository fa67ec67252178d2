"""The scales of int8 blocks: as a calibration would find them for about normal values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dsconvert.converter.core.planning.cost_model import Activation

from .block_variants import INPUT, Conv, Form, Weights

_LOW, _HIGH = -4.8, 5.0
"""The range in standard deviations; lopsided, as ranges are, so that zero points are not zero."""
_RELU6 = 6.0


@dataclass(frozen=True)
class Scale:
    """real = scale · (stored − zero_point), stored as int8."""

    scale: float
    zero_point: int

    def store(self, real: NDArray[np.float64] | Weights) -> NDArray[np.int8]:
        """Real values as int8, saturated."""
        stored = np.rint(real / self.scale) + self.zero_point
        return np.asarray(np.clip(stored, -128, 127), np.int8)

    def real(self, stored: NDArray[np.int8]) -> NDArray[np.float64]:
        """What int8 values stand for."""
        return np.asarray(self.scale * (stored.astype(np.float64) - self.zero_point))


def scale_for(spread: float, activation: Activation) -> Scale:
    """The scale of a tensor of this deviation that has gone through this activation."""
    low = _LOW * spread if activation == "none" else 0.0
    high = _HIGH * spread
    if activation == "relu6":
        high = min(high, _RELU6)
    scale = float(np.float32((high - low) / 255))
    return Scale(scale, int(np.rint(-128 - low / scale)))


def scales(form: Form) -> dict[str, Scale]:
    """The scale of everything that the form reads or makes, by name."""
    found = {INPUT: scale_for(1.0, "none")}
    for step in form.steps:
        found[step.target] = scale_for(step.spread, step.activation)
    return found


def quantized_kernel(step: Conv) -> tuple[NDArray[np.int8], Weights]:
    """A kernel as int8 with a scale per output channel, symmetric around zero.

    Returns:
        The kernel (kh, kw, C, N) or, depthwise, (kh, kw, C, M), and the scales (channels,).
    """
    axes = (0, 1) if step.depthwise else (0, 1, 2)
    largest = np.abs(step.kernel).max(axes)  # (C, M) depthwise, else (N,)
    scale = np.asarray(largest / 127, np.float32)
    stored = np.rint(step.kernel / scale).astype(np.int8)
    return stored, scale.reshape(-1)


def quantized_bias(step: Conv, source: Scale, kernel_scales: Weights) -> NDArray[np.int32]:
    """The bias (channels,), zero if there is none, at the scale of the products."""
    bias = np.zeros(step.channels, np.float32) if step.bias is None else step.bias
    return np.asarray(np.rint(bias / (source.scale * kernel_scales)), np.int32)
