"""What Resize reads: for one axis, how much of each input position an output position takes.

The formulas are those of the operator's specification; all of a resize is separable, so that one
small matrix for each axis says everything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dsconvert.base.predictor import Array


@dataclass(frozen=True)
class Sampling:
    """How Resize samples, as its attributes say.

    Attributes:
        mode: "nearest", "linear" or "cubic".
        coordinates: The coordinate transformation mode.
        nearest: The rounding of "nearest".
        cubic: The coefficient a of the cubic kernel.
        exclude_outside: Leave positions beyond the edge out instead of repeating the edge.
        antialias: Widen the kernel when downsampling.
    """

    mode: str = "nearest"
    coordinates: str = "half_pixel"
    nearest: str = "round_prefer_floor"
    cubic: float = -0.75
    exclude_outside: bool = False
    antialias: bool = False


def output_size(size: int, scale: float) -> int:
    """Tell how many positions a scaled axis has."""
    return int(np.floor(size * np.float32(scale)))


def positions(
    size: int,
    target: int,
    scale: float,
    sampling: Sampling,
    region: tuple[float, float] = (0.0, 1.0),
) -> Array:
    """Tell where each output position lies on the input axis.

    Args:
        size: Positions of the input.
        target: Positions of the output.
        scale: The factor between them; ``target / size`` unless it was given and rounded.
        sampling: How.
        region: Start and end of the part that "tf_crop_and_resize" reads, in 0 … 1.

    Returns:
        Shape (target,), float64.
    """
    i = np.arange(target, dtype=np.float64)
    match sampling.coordinates:
        case "asymmetric":
            return i / scale
        case "align_corners":
            return i * (size - 1) / (target - 1) if target > 1 else np.zeros(1)
        case "pytorch_half_pixel" if target == 1:
            return np.zeros(1)
        case "half_pixel_symmetric":
            shift = size / 2 * (1 - target / (scale * size))
            return shift + (i + 0.5) / scale - 0.5
        case "tf_half_pixel_for_nn":
            return (i + 0.5) / scale
        case "tf_crop_and_resize":
            start, end = region
            if target == 1:
                return np.array([0.5 * (start + end) * (size - 1)])
            return start * (size - 1) + i * (end - start) * (size - 1) / (target - 1)
    return (i + 0.5) / scale - 0.5  # half_pixel, pytorch_half_pixel


def nearest(where: Array, size: int, rounding: str) -> Array:
    """Return the input position next to each of ``where``, shape (target,), int64."""
    if rounding == "round_prefer_floor":
        chosen = np.ceil(where - 0.5)
    elif rounding == "round_prefer_ceil":
        chosen = np.floor(where + 0.5)
    else:
        chosen = np.floor(where) if rounding == "floor" else np.ceil(where)
    return np.clip(chosen, 0, size - 1).astype(np.int64)


def matrix(where: Array, size: int, scale: float, sampling: Sampling) -> Array:
    """Return what each output takes of each input.

    Args:
        where: Where the outputs lie, (target,).
        size: Positions of the input.
        scale: The factor; below one it widens the kernel if ``sampling.antialias``.
        sampling: How.

    Returns:
        Shape (size, target), float32: ``output = input @ matrix``. Its columns sum to one.
    """
    if sampling.mode == "nearest":
        chosen = nearest(where, size, sampling.nearest)
        return np.eye(size, dtype=np.float32)[:, chosen]
    kernel, radius = (_linear, 1) if sampling.mode == "linear" else (_cubic(sampling.cubic), 2)
    shrink = min(scale, 1.0) if sampling.antialias else 1.0
    reach = int(np.ceil(radius / shrink))
    first = np.floor(where).astype(np.int64)
    taps = first[:, None] + np.arange(-reach, reach + 2)  # (target, taps)
    weights = kernel((taps - where[:, None]) * shrink)
    inside = (taps >= 0) & (taps < size)
    if sampling.exclude_outside:
        weights = np.where(inside, weights, 0.0)
    weights /= weights.sum(axis=1, keepdims=True)
    result = np.zeros((size, len(where)))
    columns = np.broadcast_to(np.arange(len(where))[:, None], taps.shape)
    np.add.at(result, (np.clip(taps, 0, size - 1), columns), weights)
    return result.astype(np.float32)


def _linear(distance: Array) -> Array:
    weights: Array = np.maximum(1 - np.abs(distance), 0)
    return weights


def _cubic(a: float) -> Callable[[Array], Array]:
    """Return the cubic convolution kernel (Keys, 1981)."""

    def kernel(distance: Array) -> Array:
        d = np.abs(distance)
        near = ((a + 2) * d - (a + 3)) * d * d + 1
        far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
        return np.where(d <= 1, near, np.where(d < 2, far, 0.0))

    return kernel
