"""Places that are computed from the model's inputs: elements and slices written there, or read.

A place is compared with all there are, so that TFLite's own operators do it and the batch stays
free. Of several values for one place the last one stays, as in ONNX Runtime.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dsconvert.base.predictor import Array

from ..builder import KerasBuilder, refuse
from ..graph import Node
from ..layout import identity
from ..values import Constant, Order, Sizes, Tensor, Value, common_shape, in_float32

_MOST = 1 << 24
"""Comparisons of a sample: places that are given, times places that there are."""
COMBINED = {
    "add": ("add", "sum"),
    "mul": ("multiply", "prod"),
    "max": ("maximum", "max"),
    "min": ("minimum", "min"),
}
"""By ONNX's reduction: how old and new are combined, and how several new ones are."""


def write_elements(node: Node, build: KerasBuilder) -> Tensor:
    """Write each value of ScatterElements to its own place along one axis."""
    shape = common_shape(build.output_shapes(node))
    where = build.tensor(node, 1)
    axis = node.get("axis", 0) % len(shape)
    size, count = shape[axis], where.shape[axis]
    others = [(a, b) for i, (a, b) in enumerate(zip(shape, where.shape, strict=True)) if i != axis]
    if size is None or count is None or size * count > _MOST or any(a != b for a, b in others):
        raise refuse(
            node,
            f"{where.shape} computed places in {shape}: along axis {axis} the sizes have to be "
            "fixed, and along the others equal",
        )
    order = (*(a for a in range(len(shape)) if a != axis), axis)
    old, new = (_broadcast(build, build.value(node, i), order) for i in (0, 2))
    index = _from_end(node, build, build.reorder(where, order).keras, size)
    hits = _hits(node, build, index, size)  # (..., count, size)
    reduction = node.get("reduction", "none")
    if reduction == "none":
        made = _newest(node, build, hits, old, new)
    else:
        made = _combined(node, build, hits, old, new, reduction)
    return build.result(node, made, order)


def write_slices(node: Node, build: KerasBuilder, sizes: Sizes) -> Tensor:
    """Write the slices of ScatterND to computed places of the first axes.

    Args:
        node: The node.
        build: What draws.
        sizes: Of what is written to.
    """
    where = build.onnx_order(build.tensor(node, 1))
    depth = int(where.shape[-1] or 0)
    count, places = math.prod(where.shapes[0][:-1]), math.prod(sizes[:depth])
    rest = math.prod(sizes[depth:])
    reduction = node.get("reduction", "none")
    if len(set(where.shapes)) > 1 or count * places * (1 if reduction == "none" else rest) > _MOST:
        raise refuse(node, f"{where.shape} computed places in a tensor of {sizes}")
    index = _flat(node, build, where.keras, sizes[:depth])
    hits = _hits(node, build, build.apply(node, "reshape", index, (count,)), places)
    old, new = (
        _reshaped(node, build, _ordered(build, build.value(node, i), identity(rank)), shape)
        for i, rank, shape in (
            (0, len(sizes), (places, rest)),
            (2, where.rank - 1 + len(sizes) - depth, (count, rest)),
        )
    )
    if reduction == "none":
        last, written = _last(node, build, hits)
        written = build.apply(node, "expand_dims", written, -1)
        new = build.apply(node, "take", new, last, axis=0)
        made = build.apply(node, "where", written, new, old)
    else:
        new, old = (_reshaped(node, build, x, shape) for x, shape in (
            (new, (1, count, rest)), (old, (places, rest))
        ))  # fmt: skip
        each = build.apply(node, "expand_dims", build.apply(node, "transpose", hits), -1)
        combine, among = COMBINED[reduction]
        nothing = neutral(reduction, new)
        values = build.apply(node, "where", each, new, nothing)  # (places, count, rest)
        made = build.apply(node, combine, build.apply(node, among, values, axis=1), old)
    made = build.apply(node, "reshape", made, sizes)
    return build.result(node, made, identity(len(sizes)))


def read_slices(node: Node, build: KerasBuilder) -> Tensor:
    """Read the slices of GatherND from computed places of the first axes."""
    where, data = build.onnx_order(build.tensor(node, 1)), build.value(node, 0)
    batch, depth = node.get("batch_dims", 0), int(where.shape[-1] or 0)
    shapes = data.shapes if isinstance(data, Tensor) else (data.value.shape,)
    shape = common_shape(shapes)
    inner, rest = shape[batch : batch + depth], shape[batch + depth :]
    # Of the first axis its size is not needed, but where it is counted from the end.
    sizes = [size for size in inner if size is not None]
    if len(sizes) < depth or None in rest or None in where.shape[1:]:
        raise refuse(node, f"{where.shape} computed places in {shape}, of free sizes")
    whole = _ordered(build, data, identity(len(shape)))
    flat = _flat(node, build, where.keras, sizes)
    made_shapes = build.output_shapes(node)
    width, places = math.prod(int(size or 0) for size in rest), math.prod(sizes)
    if not batch:
        rows = _reshaped(node, build, whole, (places, *(int(size or 0) for size in rest)))
        made = build.apply(node, "take", rows, flat, axis=0)
        return build.result(node, made, identity(len(made_shapes[0])))
    count = math.prod(where.shapes[0][batch:-1])
    rows = _reshaped(node, build, whole, (-1, places, width))
    index = build.apply(node, "reshape", flat, (-1, count, 1))
    made = build.apply(node, "take_along_axis", rows, index, axis=1)
    folded = tuple((math.prod(s[:batch]), count, width) for s in made_shapes)
    made = build.reshape(made, folded, made_shapes, f"{node.name}_unfolded")
    return build.result(node, made, identity(len(made_shapes[0])))


def _broadcast(build: KerasBuilder, value: Value, order: Order) -> Any:
    """Return an operand in an order; a constant of one number in every size as that number."""
    if isinstance(value, Constant):
        first = value.probes[0].flat[0]
        if all((probe == first).all() for probe in value.probes):
            return in_float32(np.full((1,) * len(order), first))
    return _ordered(build, value, order)


def _ordered(build: KerasBuilder, value: Value, order: Order) -> Any:
    """Return an operand with its axes in an order: a Keras tensor or an array."""
    if isinstance(value, Constant):
        return value.value.transpose(order)
    return build.reorder(value, order).keras


def _reshaped(node: Node, build: KerasBuilder, operand: Any, shape: Sizes) -> Any:
    if isinstance(operand, np.ndarray):
        return operand.reshape(shape)
    return build.apply(node, "reshape", operand, shape)


def _from_end(node: Node, build: KerasBuilder, index: Any, size: int) -> Any:
    """Return places as int32 that count from the start."""
    index = build.apply(node, "cast", index, "int32")
    below = build.apply(node, "less", index, 0)
    return build.apply(node, "where", below, build.apply(node, "add", index, size), index)


def _flat(node: Node, build: KerasBuilder, where: Any, sizes: Any) -> Any:
    """Return places along several axes, (..., d), as numbers of elements in C order, (...)."""
    total: Any = None
    for axis, size in enumerate(sizes):
        one = build.apply(node, "get_item", where, (..., axis))
        one = _from_end(node, build, one, size)
        stride = math.prod(sizes[axis + 1 :])
        one = build.apply(node, "multiply", one, stride) if stride != 1 else one
        total = one if total is None else build.apply(node, "add", total, one)
    return total


def _hits(node: Node, build: KerasBuilder, index: Any, size: int) -> Any:
    """Tell for each given place which of all it is: (..., count) becomes (..., count, size)."""
    wide = build.apply(node, "expand_dims", index, -1)
    return build.apply(node, "equal", wide, np.arange(size, dtype=np.int32))


def _last(node: Node, build: KerasBuilder, hits: Any) -> tuple[Any, Any]:
    """Return for each place the last value that is for it, 0 for none, and whether there is one."""
    count = int(hits.shape[-2])
    numbers = np.arange(1, count + 1, dtype=np.int32)[:, None]
    last = build.apply(node, "max", build.apply(node, "where", hits, numbers, 0), axis=-2)
    first = build.apply(node, "maximum", build.apply(node, "subtract", last, 1), 0)
    return first, build.apply(node, "greater", last, 0)


def _newest(node: Node, build: KerasBuilder, hits: Any, old: Any, new: Any) -> Any:
    """Return the old elements with the last one of the new where there is one."""
    last, written = _last(node, build, hits)
    if not isinstance(new, np.ndarray) or new.size > 1:
        new = build.apply(node, "take_along_axis", new, last, axis=-1)
    return build.apply(node, "where", written, new, old)


def neutral(reduction: str, near: Any) -> Array:
    """Return what changes nothing, of an operand's element type."""
    kind = np.dtype(str(near.dtype))
    whole = kind.kind in "iu"
    low, high = (np.iinfo(kind).min, np.iinfo(kind).max) if whole else (-np.inf, np.inf)
    return np.array({"add": 0, "mul": 1, "max": low, "min": high}[reduction], kind)


def _combined(
    node: Node, build: KerasBuilder, hits: Any, old: Any, new: Any, reduction: str
) -> Any:
    """Return the old elements combined with all the new that are for them."""
    combine, among = COMBINED[reduction]
    wide = (
        new[..., None] if isinstance(new, np.ndarray) else build.apply(node, "expand_dims", new, -1)
    )
    values = build.apply(node, "where", hits, wide, neutral(reduction, wide))
    return build.apply(node, combine, build.apply(node, among, values, axis=-2), old)
