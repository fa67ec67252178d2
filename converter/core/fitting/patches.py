"""The patches a convolution sees, gathered at sampled output positions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dsconvert.base.predictor import Array

from ..types import ConvSpec, Size

Index = NDArray[np.int64]


def _side(spec: ConvSpec, size: int, axis: int) -> tuple[int, int, int]:
    """(output length, padding before, padding after) along one axis."""
    stride = spec.strides[axis]
    reach = (spec.kernel_size[axis] - 1) * spec.dilation[axis] + 1
    if spec.padding == "same" or spec.padding == "same-lower":
        length = -(-size // stride)
        total = max((length - 1) * stride + reach - size, 0)
        less, more = total // 2, total - total // 2
        return (length, less, more) if spec.padding == "same" else (length, more, less)
    before, after = (0, 0) if spec.padding == "valid" else spec.padding[axis]
    return max((size + before + after - reach) // stride + 1, 0), before, after


def output_size(spec: ConvSpec, size: Size) -> Size:
    """(H, W) of the output for an input of ``size`` (H, W)."""
    return _side(spec, size[0], 0)[0], _side(spec, size[1], 1)[0]


def padding_of(spec: ConvSpec, size: Size) -> tuple[Size, Size]:
    """((top, bottom), (left, right)) in pixels, for an input of ``size`` (H, W)."""
    return _side(spec, size[0], 0)[1:], _side(spec, size[1], 1)[1:]


def sample_positions(
    rng: np.random.Generator, images: int, size: Size, per_image: int
) -> tuple[Index, Index, Index]:
    """Output positions to look at: all of them, or ``per_image`` drawn without replacement.

    Args:
        rng: Source of randomness.
        images: Number of images in the batch.
        size: (H, W) of the output.
        per_image: How many positions of each image are wanted.

    Returns:
        (image, row, column) indices, each (P,).
    """
    pixels = size[0] * size[1]
    if per_image >= pixels:
        flat = np.tile(np.arange(pixels), (images, 1))
    else:
        flat = np.stack([rng.choice(pixels, per_image, replace=False) for _ in range(images)])
    image = np.repeat(np.arange(images), flat.shape[1])
    return image, flat.ravel() // size[1], flat.ravel() % size[1]


def gather(x: Array, spec: ConvSpec, where: tuple[Index, Index, Index]) -> Array:
    """Return the patches that produce the outputs at ``where``.

    Args:
        x: (batch, H, W, C).
        spec: Gives kernel size, strides, dilation and padding.
        where: (image, row, column) of output positions, each (P,).

    Returns:
        (P, C, kh·kw), float32.

    Raises:
        ValueError: If the images have another number of channels.
    """
    if x.shape[-1] != spec.in_channels:
        raise ValueError(f"{spec.name}: {x.shape[-1]} channels, expected {spec.in_channels}")
    image, row, column = where
    _, top, bottom = _side(spec, x.shape[1], 0)
    _, left, right = _side(spec, x.shape[2], 1)
    if top or bottom or left or right:
        x = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))
    kh, kw = spec.kernel_size
    rows = row[:, None] * spec.strides[0] + np.arange(kh) * spec.dilation[0]
    columns = column[:, None] * spec.strides[1] + np.arange(kw) * spec.dilation[1]
    patches = x[image[:, None, None], rows[:, :, None], columns[:, None, :]]  # (P, kh, kw, C)
    return np.ascontiguousarray(
        patches.reshape(len(image), kh * kw, -1).transpose(0, 2, 1), dtype=np.float32
    )
