"""Where the channel axis of images is, and moving it to where a model takes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from .predictor import Array, Shape

Layout = Literal["as stored", "moved first", "moved last", "added first", "added last"]
"""What was done with the channel axis of stored samples.

"moved first": (n, H, W, C) became (n, C, H, W); "moved last": the other way round; "added first"
and "added last": (n, H, W) became (n, 1, H, W) or (n, H, W, 1). Signals, (n, L, C), and volumes,
(n, D, H, W, C), are moved likewise.
"""

_SIZES = {3: "L", 4: "H, W", 5: "D, H, W"}
_MOVABLE = (3, 4, 5)
"""Ranks of signals, images and volumes."""
_IMAGE_CHANNELS = (1, 3, 4)


def fits(shape: Sequence[int | None], expected: Shape) -> bool:
    """Tell whether samples (n, ...) of this shape are what a model takes; None is any size.

    The first axis, the batch, is not looked at.
    """
    return len(shape) == len(expected) and all(
        None in (size, allowed) or size == allowed
        for size, allowed in zip(shape[1:], expected[1:], strict=True)
    )


def same_samples(one: Shape, other: Shape) -> bool:
    """Tell whether two inputs take the same samples, wherever the channel axis of each is."""
    moves: tuple[Layout, ...] = ("as stored", "moved first", "moved last")
    return any(fits(arranged(one, move), other) for move in moves)


def choose(stored: Sequence[int], expected: Shape | None, *, channels_first: bool) -> Layout:
    """Return what to do with the channel axis of an array so that a model takes it.

    Args:
        stored: The array's shape, (n, ...).
        expected: The shape of the model's input, batch axis first; None where it is not known.
        channels_first: Whether images are wanted as (n, C, H, W) wherever that fits; otherwise
            what fits as it is stored is left so.

    Returns:
        The first that fits; "as stored" where nothing does.
    """
    if expected is None:
        return "moved first" if channels_first and len(stored) == 4 else "as stored"
    candidates: list[Layout] = ["as stored", "moved first", "moved last"]
    if channels_first:
        candidates = ["moved first", "as stored", "moved last"]
    if len(stored) == len(expected) - 1:
        candidates = ["added last"] if expected[-1] == 1 else []
        if len(expected) == 4 and expected[1] == 1:
            candidates.insert(0 if channels_first else 1, "added first")

    def works(layout: Layout) -> bool:
        shape = arranged(stored, layout)
        return bool(shape) and fits(shape, expected)

    return next(filter(works, candidates), "as stored")


def arranged(shape: Sequence[int | None], layout: Layout) -> tuple[int | None, ...]:
    """Return the shape that an array of this shape gets; () where the layout is not one for it."""
    if layout == "added first":
        return (shape[0], 1, *shape[1:])
    if layout == "added last":
        return (*shape, 1)
    if layout == "as stored":
        return tuple(shape)
    rank = len(shape)
    return tuple(shape[axis] for axis in _axes(layout, rank)) if rank in _MOVABLE else ()


def arrange(array: Array, layout: Layout) -> Array:
    """Return the array with its channel axis where the layout says, contiguous."""
    if layout == "as stored":
        return array
    if layout.startswith("added"):
        return np.expand_dims(array, 1 if layout == "added first" else -1)
    return np.ascontiguousarray(array.transpose(_axes(layout, array.ndim)))


def channel_axes(shape: Sequence[int], layout: Layout) -> tuple[int, ...]:
    """Return the axes of an arranged array that may hold the channels, the likeliest first.

    Where nothing was moved nobody said which it is: the last one, or the one behind the batch.
    """
    if layout == "as stored":
        return (-1, 1) if len(shape) > 2 else (-1,)
    if len(shape) == 3 and layout.startswith("moved"):  # either way the two axes are exchanged
        return (1, -1)
    return (1,) if layout.endswith("first") else (-1,)


def then(before: Layout, after: Layout) -> Layout:
    """Return one layout for two in a row, the second of which moves the axis or does nothing."""
    if after == "as stored":
        return before
    if before == "as stored":
        return after
    if before.startswith("added"):
        return "added first" if after == "moved first" else "added last"
    return "as stored" if before != after else after


def told_layout(layout: Layout, rank: int) -> str:
    """Say what was done with samples that have this many axes now; empty for nothing.

    >>> told_layout("moved first", 4)
    '(n, H, W, C) → (n, C, H, W)'
    """
    if rank == 3 and layout.startswith("moved"):
        return "(n, L, C) and (n, C, L) exchanged"
    sizes = _SIZES.get(rank, "…")
    first, last = f"(n, C, {sizes})", f"(n, {sizes}, C)"
    return {
        "as stored": "",
        "moved first": f"{last} → {first}",
        "moved last": f"{first} → {last}",
        "added first": f"(n, {sizes}) → (n, 1, {sizes})",
        "added last": f"(n, {sizes}) → (n, {sizes}, 1)",
    }[layout]


def channels_last(shape: Shape, *, channels_first: bool = False) -> Shape:
    """Return the shape of a model's input with the channels last, where that is an image.

    Args:
        shape: Batch axis first.
        channels_first: Whether it is known to be (n, C, H, W); otherwise it is taken to be so where
            the second size is that of an image's channels and the last is not.
    """
    if len(shape) != 4:
        return tuple(shape)
    looks_so = shape[1] in _IMAGE_CHANNELS and shape[3] not in _IMAGE_CHANNELS
    if channels_first or looks_so:
        return (shape[0], shape[2], shape[3], shape[1])
    return tuple(shape)


def _axes(layout: Layout, rank: int) -> tuple[int, ...]:
    places = range(1, rank)
    if layout == "moved first":
        return (0, places[-1], *places[:-1])
    return (0, *places[1:], places[0])
