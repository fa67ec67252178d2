"""Training batches: shuffled, augmented, and the same whenever an epoch is repeated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

from dsconvert.base.errors import InputError
from dsconvert.base.predictor import Array

Augmentation = Literal["flip", "crop", "light", "mix"]
_Item = TypeVar("_Item")

_SHIFT = 8
"""A crop moves the image by at most 1/8 of its size, as is usual for CIFAR (4 of 32 pixels)."""
_LIGHT = 0.2
"""How far contrast and brightness change, as shares of 1 and of the standard deviation."""
_MIXED = 0.5
"""The largest share of another image in a mixture."""
_SPREAD_OF = 512
"""Samples from which the standard deviation is taken."""


def epoch_batches(
    inputs: Sequence[Array],
    batch_size: int,
    augment: Sequence[Augmentation],
    *,
    seed: int,
    epoch: int,
    done: int = 0,
    rows: slice = slice(None),
) -> Iterator[tuple[Array, tuple[Array, ...]]]:
    """Yield one epoch's batches; samples that do not fill the last batch are left out.

    Args:
        inputs: One array per model input, (n, ...).
        batch_size: Samples per batch, at most n.
        augment: What is done to them, to all inputs alike. "flip" mirrors half of the images left
            to right, "crop" moves each by up to an eighth of its size and fills in by reflection,
            "light" changes their contrast and brightness by up to a fifth; all three only inputs
            (n, H, W, C). "mix" adds up to a half of another sample (arXiv:1710.09412).
        seed: With ``epoch`` it decides the order and the augmentation.
        epoch: Number of the epoch.
        done: How many of its batches are left out at the start; the others are what they were.
        rows: Which samples of each batch are wanted; the others are read only where they are mixed
            into these.

    Yields:
        The indices of the samples, (rows,), and one array per input, (rows, ...).
    """
    count = len(inputs[0])
    order = np.random.default_rng((seed, epoch)).permutation(count)
    spreads = [_spread(array) if "light" in augment else 0.0 for array in inputs]
    for number in range(done, count // batch_size):
        index = order[number * batch_size : (number + 1) * batch_size]
        draws = _Draws.of(batch_size, np.random.default_rng((seed, epoch, number)))
        draws = draws.taking(rows, mixing="mix" in augment)
        changed = (
            draws.change(array[index[draws.read]], augment, spread)
            for array, spread in zip(inputs, spreads, strict=True)
        )
        yield index[rows], tuple(changed)


def ahead(items: Iterator[_Item]) -> Iterator[_Item]:
    """Yield what an iterator gives, while the next item is made in a thread."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, items, None)
            yield item


def augmentation(
    inputs: Sequence[Array], asked: Sequence[Augmentation] | None, *, labelled: bool = False
) -> Sequence[Augmentation]:
    """Return what to do with these inputs: what was asked for, or what suits them.

    By default photographs, which have three channels, are flipped and moved: a teacher often was
    trained on the same images, and knows these too well to teach much by them. Of what is always
    centred, as digits are, the student would learn what it never sees: on these the held-out error
    rose.

    Args:
        inputs: One array per model input, (n, ...).
        asked: What was asked for.
        labelled: Whether labels are learnt, which a mixture does not have.

    Raises:
        InputError: If what was asked for cannot be done.
    """
    images = any(array.ndim == 4 for array in inputs)
    mixes = not labelled and _mixable(inputs)
    if asked is None:
        return ("flip", "crop") if are_photographs(inputs) else ()
    if set(asked) - {"mix"} and not images:
        shapes = ", ".join(str(array.shape) for array in inputs)
        raise InputError(
            f"augmentation by {' and '.join(asked)} needs images (n, height, width, channels); "
            f"the data have the shape {shapes}.",
            "Leave the augmentation out.",
            code="not-images",
        )
    if "mix" in asked and not mixes:
        raise InputError(
            "mixtures have no labels." if labelled else "whole numbers cannot be mixed.",
            "Leave the labels out, or mix." if labelled else "Leave mix out.",
            code="not-mixable",
        )
    return asked


def augmentation_of_few(inputs: Sequence[Array]) -> Sequence[Augmentation]:
    """Return what makes the most of some hundred samples: mixtures, and all that photographs allow.

    Args:
        inputs: One array per model input, (n, ...).
    """
    mix: tuple[Augmentation, ...] = ("mix",) if _mixable(inputs) else ()
    return ("flip", "crop", "light", *mix) if are_photographs(inputs) else mix


def are_photographs(inputs: Sequence[Array]) -> bool:
    """Tell photographs by their three channels, (n, H, W, 3)."""
    return any(array.ndim == 4 and array.shape[-1] == 3 for array in inputs)


def _mixable(inputs: Sequence[Array]) -> bool:
    return all(np.issubdtype(array.dtype, np.floating) for array in inputs)


@dataclass(frozen=True)
class _Draws:
    """What happens to the samples of a batch, of which b are read and r are wanted.

    Attributes:
        mirrored: Whether a sample is flipped, (b,).
        offsets: Where it is moved to, in 0…1, (b, 2).
        gain: What its contrast is multiplied by, (b,).
        shift: What is added, in standard deviations, (b,).
        share: That of the other sample in each mixture, (r,).
        read: The places in the batch of what is read, (b,), rising.
        own: The wanted ones among these, (r,).
        other: The samples that are mixed into them, (r,).
    """

    mirrored: Array
    offsets: Array
    gain: Array
    shift: Array
    share: Array
    read: Array
    own: Array
    other: Array

    @classmethod
    def of(cls, count: int, generator: np.random.Generator) -> _Draws:
        """Draw all of it, whether it is used or not."""
        return cls(
            generator.random(count) < 0.5,
            generator.random((count, 2)),
            generator.uniform(1 - _LIGHT, 1 + _LIGHT, count),
            generator.uniform(-_LIGHT, _LIGHT, count),
            generator.uniform(0, _MIXED, count),
            np.arange(count),
            np.arange(count),
            generator.permutation(count),
        )

    def taking(self, rows: slice, *, mixing: bool) -> _Draws:
        """Return what happens to some of the samples, and to those that are mixed into them."""
        own, other = self.own[rows], self.other[rows]
        read = np.union1d(own, other) if mixing else own
        return _Draws(
            self.mirrored[read],
            self.offsets[read],
            self.gain[read],
            self.shift[read],
            self.share[rows],
            read,
            np.searchsorted(read, own),
            np.searchsorted(read, other) if mixing else own,
        )

    def change(self, batch: Array, augment: Sequence[Augmentation], spread: float) -> Array:
        """Return what is trained on, (r, ...), of what was read, (b, ...)."""

        def each(values: Array) -> Array:
            return values.reshape(-1, *[1] * (batch.ndim - 1)).astype(np.float32)

        if batch.ndim == 4:
            batch = self._move(batch, augment)
            if "light" in augment:
                batch = np.asarray(batch * each(self.gain) + each(self.shift * spread), np.float32)
        if "mix" in augment:
            own, other = batch[self.own], batch[self.other]
            batch = np.asarray(own + each(self.share) * (other - own), np.float32)
        return batch

    def _move(self, images: Array, augment: Sequence[Augmentation]) -> Array:
        """Flip and move images (b, H, W, C)."""
        if "flip" in augment:
            images = np.where(self.mirrored[:, None, None, None], images[:, :, ::-1], images)
        if "crop" not in augment:
            return images
        height, width = images.shape[1:3]
        pad = (height // _SHIFT, width // _SHIFT)
        padded = np.pad(images, ((0, 0), (pad[0],) * 2, (pad[1],) * 2, (0, 0)), mode="reflect")
        corners = np.floor(self.offsets * (2 * np.array(pad) + 1)).astype(int)
        return np.stack(
            [
                image[top : top + height, left : left + width]
                for image, (top, left) in zip(padded, corners, strict=True)
            ]
        )


def _spread(array: Array) -> float:
    """Return the standard deviation of the first samples, (n, ...)."""
    return float(np.std(array[:_SPREAD_OF], dtype=np.float64))
