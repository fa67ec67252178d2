"""Arithmetic of axis orders and reshapes: no framework, no graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dsconvert.base.predictor import Array

from .values import Order, Sizes


def identity(rank: int) -> Order:
    """Return the order of ONNX itself."""
    return tuple(range(rank))


def channels_last(rank: int) -> Order:
    """(0, 2, 3, 1) for images, and alike for other ranks."""
    return (0, *range(2, rank), 1) if rank > 2 else identity(rank)


def after_transpose(order: Order, perm: Sequence[int]) -> Order:
    """Return the order in which a stored tensor holds the axes that a Transpose gives it."""
    new_axis = {old: new for new, old in enumerate(perm)}
    return tuple(new_axis[axis] for axis in order)


def after_squeeze(order: Order, axes: Sequence[int]) -> Order:
    """Return the order that is left when these ONNX axes are dropped."""
    left = [axis for axis in order if axis not in axes]
    return tuple(axis - sum(dropped < axis for dropped in axes) for axis in left)


def is_trivial(shapes: Sequence[Sizes], old: Order, new: Order) -> bool:
    """Tell whether going from one order to another moves only axes of size 1: a reshape does it."""
    large = {axis for axis in old if any(sizes[axis] != 1 for sizes in shapes)}
    return [a for a in old if a in large] == [a for a in new if a in large]


@dataclass(frozen=True)
class Segment:
    """Neighbouring axes that a reshape turns into other neighbouring axes, of one product."""

    before: tuple[int, ...]
    after: tuple[int, ...]


def segments(before: Sequence[Sizes], after: Sequence[Sizes]) -> list[Segment]:
    """Return the smallest pieces of a reshape; axes of size 1 are in none of them.

    (N, C, H, W) to (N, 2, C/2, HW) is 0 → 0, 1 → 1 2, 2 3 → 3.

    Args:
        before: The shape before, once per probe.
        after: The shape after, once per probe.
    """
    old, new = _large(before), _large(after)
    found, i, j = [], 0, 0
    while i < len(old) or j < len(new):
        first, second = i, j
        left = right = (1,) * len(before)
        while (first == i and second == j) or left != right:
            grow_left = i < len(old) and (j >= len(new) or left[0] <= right[0])
            if grow_left:
                left = _times(left, before, old[i])
                i += 1
            elif j < len(new):
                right = _times(right, after, new[j])
                j += 1
            else:
                break
        found.append(Segment(tuple(old[first:i]), tuple(new[second:j])))
    return found


def _large(shapes: Sequence[Sizes]) -> list[int]:
    return [axis for axis in range(len(shapes[0])) if any(sizes[axis] != 1 for sizes in shapes)]


def _times(product: Sizes, shapes: Sequence[Sizes], axis: int) -> Sizes:
    return tuple(p * sizes[axis] for p, sizes in zip(product, shapes, strict=True))


def flat_rows(sizes: Sizes, order: Order) -> Array:
    """Find where each element of a tensor flattened in another order stands in ONNX's flattening.

    Args:
        sizes: The shape that is flattened, in ONNX axes.
        order: The order in which it is stored.
    """
    count = int(np.prod(sizes, dtype=np.int64))
    return np.arange(count).reshape(sizes).transpose(order).ravel()
