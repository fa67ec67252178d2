"""Training batches: shuffled, augmented, and the same whenever an epoch is repeated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, TypeVar

import numpy as np

from dsconvert.base.errors import InputError
from dsconvert.base.predictor import Array

Augmentation = Literal["flip", "crop"]
_Item = TypeVar("_Item")

_SHIFT = 8
"""A crop moves the image by at most 1/8 of its size, as is usual for CIFAR (4 of 32 pixels)."""


def epoch_batches(
    inputs: Sequence[Array],
    batch_size: int,
    augment: Sequence[Augmentation],
    *,
    seed: int,
    epoch: int,
    done: int = 0,
) -> Iterator[tuple[Array, tuple[Array, ...]]]:
    """Yield one epoch's batches; samples that do not fill the last batch are left out.

    Args:
        inputs: One array per model input, (n, ...).
        batch_size: Samples per batch, at most n.
        augment: "flip" mirrors half of the images left to right, "crop" moves each by up to an
            eighth of its size and fills in by reflection. Only inputs (n, H, W, C) change, all
            in the same way.
        seed: With ``epoch`` it decides the order and the augmentation.
        epoch: Number of the epoch.
        done: How many of its batches are left out at the start; the others are what they were.

    Yields:
        The indices of the samples, (batch,), and one array per input, (batch, ...).
    """
    count = len(inputs[0])
    generator = np.random.default_rng((seed, epoch))
    order = generator.permutation(count)
    for _ in range(done):
        _moves(batch_size, generator)
    for start in range(done * batch_size, count - batch_size + 1, batch_size):
        index = order[start : start + batch_size]
        yield index, moved([array[index] for array in inputs], augment, generator)


def moved(
    samples: Sequence[Array], augment: Sequence[Augmentation], generator: np.random.Generator
) -> tuple[Array, ...]:
    """Flip and move some samples, all inputs in the same way.

    Args:
        samples: One array per model input, (b, ...).
        augment: See `epoch_batches`.
        generator: Draws which are flipped, and how far each is moved.
    """
    mirrored, offsets = _moves(len(samples[0]), generator)
    return tuple(_augment(array, augment, mirrored, offsets) for array in samples)


def _moves(count: int, generator: np.random.Generator) -> tuple[Array, Array]:
    """Draw which samples are mirrored, (count,), and their offsets in 0…1, (count, 2)."""
    return generator.random(count) < 0.5, generator.random((count, 2))


def ahead(items: Iterator[_Item]) -> Iterator[_Item]:
    """Yield what an iterator gives, while the next item is made in a thread."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, items, None)
            yield item


def augmentation(
    inputs: Sequence[Array], asked: Sequence[Augmentation] | None
) -> Sequence[Augmentation]:
    """Return what to do with these inputs: what was asked for, or a flip of colour images.

    Raises:
        InputError: If there is no input (n, H, W, C).
    """
    if asked is None:
        return ("flip",) if any(x.ndim == 4 and x.shape[-1] == 3 for x in inputs) else ()
    if asked and not any(array.ndim == 4 for array in inputs):
        shapes = ", ".join(str(array.shape) for array in inputs)
        raise InputError(
            f"augmentation by {' and '.join(asked)} needs images (n, height, width, channels); "
            f"the data have the shape {shapes}.",
            "Leave the augmentation out.",
            code="not-images",
        )
    return asked


def _augment(
    images: Array, augment: Sequence[Augmentation], mirrored: Array, offsets: Array
) -> Array:
    """Flip and move a batch (b, H, W, C); ``offsets`` (b, 2) are in 0…1."""
    if images.ndim != 4:
        return images
    if "flip" in augment:
        images = np.where(mirrored[:, None, None, None], images[:, :, ::-1], images)
    if "crop" in augment:
        height, width = images.shape[1:3]
        pad = (height // _SHIFT, width // _SHIFT)
        padded = np.pad(images, ((0, 0), (pad[0],) * 2, (pad[1],) * 2, (0, 0)), mode="reflect")
        corners = np.floor(offsets * (2 * np.array(pad) + 1)).astype(int)
        images = np.stack(
            [
                image[top : top + height, left : left + width]
                for image, (top, left) in zip(padded, corners, strict=True)
            ]
        )
    return images
