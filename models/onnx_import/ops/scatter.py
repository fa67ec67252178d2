"""Operators that write values to places of a tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from dsconvert.base.predictor import Array

from ..builder import KerasBuilder, refuse
from ..graph import Node
from ..layout import identity
from ..registry import op
from ..values import Constant, Sizes, Tensor
from .computed_places import COMBINED, neutral, write_elements, write_slices

Cut: TypeAlias = tuple[int, int] | None
"""Start and stop along an axis; None for the whole of it."""


@op("ScatterND")
def scatter_nd(node: Node, build: KerasBuilder) -> Tensor:
    """Write slices to places of the first axes."""
    if not build.is_constant(node, 1):
        return write_slices(node, build, _sizes(node, build))
    if len(set(build.output_shapes(node))) > 1 and node.get("reduction", "none") == "none":
        return _free_block(node, build)
    sizes = _sizes(node, build)
    return _written(node, build, sizes, _places(build.constant(node, 1), sizes))


def _places(where: Array, sizes: Sizes) -> Array:
    """Return for each value of ScatterND the number of the element that it goes to."""
    depth = where.shape[-1]
    where = np.where(where < 0, where + np.array(sizes[:depth]), where)
    rest = int(np.prod(sizes[depth:], dtype=np.int64))
    first = np.ravel_multi_index(tuple(np.moveaxis(where, -1, 0)), sizes[:depth]) * rest
    places: Array = first[..., None] + np.arange(rest)
    return places.reshape(*where.shape[:-1], *sizes[depth:])


def _free_block(node: Node, build: KerasBuilder) -> Tensor:
    """Write a block to a tensor of free sizes, as ``y[..., :2] = …`` is exported.

    Each axis is cut at the same places for all sizes of the inputs, or not at all.
    """
    shapes, where = build.output_shapes(node), build.value(node, 1)
    assert isinstance(where, Constant)
    probes = where.probes * (len(shapes) // len(where.probes))
    boxes = [_box(_places(one, sizes), sizes) for one, sizes in zip(probes, shapes, strict=True)]
    cuts: list[Cut] = []
    for axis, sizes in enumerate(zip(*shapes, strict=True)):
        ends = [None if box is None else box[axis] for box in boxes]
        whole = all(end == (0, size) for end, size in zip(ends, sizes, strict=True))
        if not whole and (len(set(ends)) > 1 or None in ends):
            raise refuse(
                node,
                f"where it writes along axis {axis} depends on free sizes of the inputs",
                "Fix the sizes of the model's inputs before importing.",
            )
        cuts.append(None if whole else ends[0])
    target, values = build.onnx_order(build.tensor(node)), build.value(node, 2)
    if isinstance(values, Constant):
        number = values.probes[0].flat[0]
        if any((probe != number).any() for probe in values.probes):
            raise refuse(node, "it writes several constants to a tensor of free sizes")
        key = tuple(slice(None) if cut is None else slice(*cut) for cut in cuts)
        part = build.apply(node, "get_item", target.keras, key)
        new = build.apply(node, "full_like", part, float(number))
        made = _into_box(node, build, target.keras, new, cuts)
        return build.result(node, made, identity(len(cuts)))
    lengths = tuple(
        tuple(size if cut is None else cut[1] - cut[0] for size, cut in zip(one, cuts, strict=True))
        for one in shapes
    )
    block = build.onnx_order(values)
    new = block.keras
    if block.shapes != lengths:
        new = build.reshape(new, block.shapes, lengths, f"{node.name}_block")
    return build.result(node, _into_box(node, build, target.keras, new, cuts), identity(len(cuts)))


@op("ScatterElements", "Scatter")
def scatter_elements(node: Node, build: KerasBuilder) -> Tensor:
    """Write each value to a place of its own along one axis."""
    if not build.is_constant(node, 1):
        return write_elements(node, build)
    where = build.constant(node, 1)
    sizes = _sizes(node, build)
    axis = node.get("axis", 0) % len(sizes)
    index = list(np.indices(where.shape))
    index[axis] = np.where(where < 0, where + sizes[axis], where)
    return _written(node, build, sizes, np.ravel_multi_index(tuple(index), sizes))


def _sizes(node: Node, build: KerasBuilder) -> Sizes:
    """Return the sizes of what is written to, which must be fixed."""
    shapes = build.output_shapes(node)
    if len(set(shapes)) > 1:
        raise refuse(
            node,
            "it writes to a tensor of free sizes",
            "Fix the sizes of the model's inputs before importing.",
        )
    return shapes[0]


def _written(node: Node, build: KerasBuilder, sizes: Sizes, places: Array) -> Tensor:
    """Write values to places.

    Args:
        node: The node: what is written to, places, values.
        build: What draws.
        sizes: The shape of what is written to, in ONNX axes.
        places: For each value where it goes, in the shape of the values: the number of the element
            in C order.
    """
    target, values = _whole(node, build, 0), _whole(node, build, 2)
    reduction = node.get("reduction", "none")
    box = _box(places, sizes) if reduction == "none" else None
    if box is not None:
        lengths = tuple(stop - start for start, stop in box)
        if tuple(values.shape) != lengths:
            values = build.apply(node, "reshape", values, lengths)
        made = _into_box(node, build, target, values, box)
    elif reduction == "none":
        made = picked(node, build, [target, values], sizes, places)
    else:
        made = _combined(node, build, (target, values), sizes, places, reduction)
    return build.result(node, made, identity(len(sizes)))


def _whole(node: Node, build: KerasBuilder, index: int) -> Any:
    """Return an operand with its axes as ONNX has them: a Keras tensor, or an array."""
    value = build.value(node, index)
    return value.value if isinstance(value, Constant) else build.onnx_order(value).keras


def _box(places: Array, sizes: Sizes) -> tuple[tuple[int, int], ...] | None:
    """Return start and stop along each axis where the places are a block of neighbours."""
    if not places.size:
        return None
    flat = places.ravel()
    low, high = (np.unravel_index(flat[end], sizes) for end in (0, -1))
    box = tuple((int(a), int(b) + 1) for a, b in zip(low, high, strict=True))
    lengths = [b - a for a, b in box]
    if min(lengths) < 1 or np.prod(lengths) != flat.size:
        return None
    grid = [g + a for g, (a, _) in zip(np.indices(lengths), box, strict=True)]
    same = np.array_equal(np.ravel_multi_index(tuple(grid), sizes).ravel(), flat)
    return box if same else None


def _into_box(node: Node, build: KerasBuilder, target: Any, values: Any, box: Sequence[Cut]) -> Any:
    """Put a block in the place of another, axis by axis: what is before it, it, what is behind."""

    def put(whole: Any, axis: int) -> Any:
        if axis == len(box):
            return values
        start, stop = box[axis] or (0, whole.shape[axis])
        size = whole.shape[axis]
        if (start, stop) == (0, size):
            return put(whole, axis + 1)

        def part(first: int, last: int | None) -> Any:
            key = (*[slice(None)] * axis, slice(first, last))
            if isinstance(whole, np.ndarray):
                return whole[key]
            return build.apply(node, "get_item", whole, key)

        parts = [part(0, start)] if start else []
        parts.append(put(part(start, stop), axis + 1))
        parts += [part(stop, size)] if size is None or stop < size else []
        return build.apply(node, "concatenate", parts, axis=axis)

    return put(target, 0)


def picked(
    node: Node, build: KerasBuilder, operands: Sequence[Any], sizes: Sizes, places: Array
) -> Any:
    """Take each element from the old ones or the new ones, which stand in one row."""
    count = int(np.prod(sizes, dtype=np.int64))
    index = np.arange(count, dtype=np.int32)
    index[places.ravel()] = count + np.arange(places.size, dtype=np.int32)
    row = build.apply(node, "concatenate", [_row(node, build, x) for x in operands], axis=0)
    return build.apply(node, "reshape", build.apply(node, "take", row, index, axis=0), sizes)


def _combined(
    node: Node,
    build: KerasBuilder,
    operands: tuple[Any, Any],
    sizes: Sizes,
    places: Array,
    reduction: str,
) -> Any:
    """Combine old and new elements; a place that is written to n times takes n rounds."""
    target, values = operands
    combine, _ = COMBINED[reduction]
    count = int(np.prod(sizes, dtype=np.int64))
    row = _row(node, build, values)
    parts = [row, neutral(reduction, row)[None]]
    constant = isinstance(row, np.ndarray)
    row = np.concatenate(parts) if constant else build.apply(node, "concatenate", parts, axis=0)
    left = np.arange(places.size)
    while left.size:
        at = places.ravel()[left]
        _, first = np.unique(at, return_index=True)
        index = np.full(count, places.size, np.int32)
        index[at[first]] = left[first]
        new = row[index] if constant else build.apply(node, "take", row, index, axis=0)
        new = new.reshape(sizes) if constant else build.apply(node, "reshape", new, sizes)
        target = build.apply(node, combine, target, new)
        left = np.delete(left, first)
    return target


def _row(node: Node, build: KerasBuilder, operand: Any) -> Any:
    """Return all elements along one axis."""
    if isinstance(operand, np.ndarray):
        return operand.ravel()
    return build.apply(node, "reshape", operand, (-1,))
