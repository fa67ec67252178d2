"""Operators that join, cut and pick."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dsconvert.base.predictor import Array

from ..builder import KerasBuilder, refuse
from ..graph import Node
from ..layout import after_squeeze, identity
from ..registry import op
from ..values import Constant, Tensor
from .computed_places import read_slices

_FAR = 2**31 - 1


@op("Concat")
def concat(node: Node, build: KerasBuilder) -> Tensor:
    """Tensors and constants one after the other, all stored as the largest tensor is."""
    values = [build.value(node, index) for index in range(len(node.inputs))]
    tensors = [value for value in values if isinstance(value, Tensor)]
    order = max(tensors, key=lambda x: np.prod(x.shapes[0], dtype=np.int64)).order
    axis = order.index(node.attributes["axis"] % len(order))
    parts = [
        build.held(value.value.transpose(order), tensors[0].keras)
        if isinstance(value, Constant)
        else build.reorder(value, order).keras
        for value in values
    ]
    if len(values) == 1:
        return build.result(node, parts[0], order)
    if len(values) == len(tensors) and all("float" in x.keras.dtype for x in tensors):
        return build.result(node, build.layer(node, "Concatenate", axis=axis)(parts), order)
    return build.result(node, build.apply(node, "concatenate", parts, axis=axis), order)


@op("Split")
def split(node: Node, build: KerasBuilder) -> Sequence[Tensor]:
    """Parts of given sizes, or of one size with a smaller one at the end."""
    x = build.tensor(node)
    axis = node.get("axis", 0) % x.rank
    results = []
    starts = (0,) * len(x.shapes)
    for index, name in enumerate(node.outputs):
        if not name:
            raise refuse(node, "one of its outputs has no name")
        sizes = [shape[axis] for shape in build.output_shapes(node, index)]
        stops = tuple(start + size for start, size in zip(starts, sizes, strict=True))
        key = [slice(None)] * x.rank
        key[x.axis(axis)] = _slice(node, x, axis, starts, stops, 1)
        tensor = build.apply(node, "get_item", x.keras, tuple(key))
        results.append(build.result(node, tensor, x.order, index))
        starts = stops
    return results


@op("Slice")
def cut(node: Node, build: KerasBuilder) -> Tensor:
    """Ranges along some axes, attributes of the node or inputs."""
    x = build.tensor(node)
    starts, ends = _bounds(node, build, "starts", 1), _bounds(node, build, "ends", 2)
    count = len(starts[0])
    given = build.setting(node, "axes", 3)
    axes = list(range(count)) if given is None else [int(axis) % x.rank for axis in given]
    steps = [1] * count if not node.has(4) else [int(step) for step in build.constant(node, 4)]
    key = [slice(None)] * x.rank
    for i, (axis, step) in enumerate(zip(axes, steps, strict=True)):
        key[x.axis(axis)] = _slice(
            node,
            x,
            axis,
            tuple(int(probe[i]) for probe in starts),
            tuple(int(probe[i]) for probe in ends),
            step,
        )
    if all(part == slice(None) for part in key):
        return build.result(node, x.keras, x.order)
    return build.result(node, build.apply(node, "get_item", x.keras, tuple(key)), x.order)


def _bounds(node: Node, build: KerasBuilder, name: str, index: int) -> Sequence[Array]:
    """Starts or ends, once per probe: they may depend on the sizes of the inputs."""
    if name in node.attributes:
        return [np.asarray(node.attributes[name])]
    value = build.value(node, index)
    if isinstance(value, Tensor):
        raise refuse(node, f"its {name} are computed from the model's inputs")
    return value.probes


def _slice(
    node: Node, x: Tensor, axis: int, starts: Sequence[int], stops: Sequence[int], step: int
) -> slice:
    """Return a Python slice that reads what ONNX says, for every size that was tried."""
    sizes = [shape[axis] for shape in x.shapes]
    starts, stops = ([*bound] * (len(sizes) // len(bound)) for bound in (starts, stops))
    ranges = [
        _positions(start, stop, step, size)
        for start, stop, size in zip(starts, stops, sizes, strict=True)
    ]
    if step == 1 and all(
        r.start == 0 and r.stop == size for r, size in zip(ranges, sizes, strict=True)
    ):
        return slice(None)
    if len(set(sizes)) == 1 and len(set(ranges)) == 1:
        first = ranges[0]
        if not first:
            return slice(0, 0)
        return slice(first.start, first.stop if first.stop >= 0 else None, step)
    start = _common(starts, sizes)
    stop = _common(stops, sizes)
    if start is None or stop is None:
        raise refuse(
            node,
            f"what it reads of axis {axis} depends on the input's size in a way that a slice "
            "cannot say",
            "Fix the sizes of the model's inputs before importing.",
        )
    near = [None if abs(bound) >= _FAR else bound for bound in (start, stop)]
    return slice(near[0], near[1], step)


def _positions(start: int, stop: int, step: int, size: int) -> range:
    """Tell what ONNX reads: a start before the first element is the first, in either direction."""
    start, stop = (bound + size if bound < 0 else bound for bound in (start, stop))
    first, last = (0, size) if step > 0 else (-1, size - 1)
    return range(min(max(start, 0), last), min(max(stop, first), last), step)


def _common(bounds: Sequence[int], sizes: Sequence[int]) -> int | None:
    """Return one number for a bound at all sizes: counted from the start, or from the end."""
    if len(set(bounds)) == 1:
        return bounds[0]
    if all(bound >= size for bound, size in zip(bounds, sizes, strict=True)):
        return _FAR
    from_end = {bound - size for bound, size in zip(bounds, sizes, strict=True)}
    return from_end.pop() if len(from_end) == 1 and max(from_end) < 0 else None


@op("Gather")
def gather(node: Node, build: KerasBuilder) -> Tensor:
    """Return what stands at some positions of an axis; a single position drops the axis."""
    if not build.is_constant(node, 1):
        return _lookup(node, build)
    x = build.tensor(node)
    axis = node.get("axis", 0) % x.rank
    where = build.constant(node, 1)
    stored = x.axis(axis)
    if where.ndim == 0:
        key = [slice(None)] * x.rank
        position = int(where)
        if x.shape[axis] is None:  # Keras knows no size of a slice that it could squeeze
            tensor = build.apply(node, "take", x.keras, position, axis=stored)
        else:
            key[stored] = slice(position, position + 1 or None)
            kept = build.apply(node, "get_item", x.keras, tuple(key))
            tensor = build.apply(node, "squeeze", kept, axis=stored)
        return build.result(node, tensor, after_squeeze(x.order, [axis]))
    size = x.shape[axis]
    if size is None and (where < 0).any():
        raise refuse(node, "it counts from the end of an axis of free size")
    where = np.where(where < 0, where + (size or 0), where).astype(np.int32)
    tensor = build.apply(node, "take", x.keras, where, axis=stored)
    more = where.ndim - 1
    new = tuple(range(axis, axis + where.ndim))
    order: tuple[int, ...] = ()
    for old in x.order:
        order += new if old == axis else (old + more if old > axis else old,)
    return build.result(node, tensor, order)


def _lookup(node: Node, build: KerasBuilder) -> Tensor:
    """Positions that are computed: a table looked up, or an activation."""
    indices = build.onnx_order(build.tensor(node, 1))
    where = indices.keras
    table = build.value(node, 0)
    rank = table.value.ndim if isinstance(table, Constant) else table.rank
    axis = node.get("axis", 0) % rank
    if isinstance(table, Constant) and (axis, rank, table.value.dtype.kind) == (0, 2, "f"):
        rows, width = table.value.shape
        layer = build.layer(node, "Embedding", input_dim=rows, output_dim=width)
        tensor = layer(where)
        build.weight(node, 0, layer, "embeddings")
        return build.result(node, tensor, identity(indices.rank + 1))
    data = table.value if isinstance(table, Constant) else build.onnx_order(table).keras
    tensor = build.apply(node, "take", data, where, axis=axis)
    return build.result(node, tensor, identity(rank - 1 + indices.rank))


@op("GatherElements")
def gather_elements(node: Node, build: KerasBuilder) -> Tensor:
    """For each output element its own position along one axis."""
    x = build.tensor(node)
    axis = node.get("axis", 0) % x.rank
    stored = x.axis(axis)
    shapes = build.output_shapes(node)
    if build.is_constant(node, 1):
        where = build.constant(node, 1).transpose(x.order)
    else:
        where = build.reorder(build.tensor(node, 1), x.order).keras

    def part(a: int) -> slice:
        """Return what is read along an axis: as many positions as there are indices."""
        pairs = [(made[a], own[a]) for made, own in zip(shapes, x.shapes, strict=True)]
        if a == axis or all(made == own for made, own in pairs):
            return slice(None)
        if len({made for made, _ in pairs}) > 1:
            raise refuse(node, f"a part of axis {a} whose size depends on the inputs' sizes")
        return slice(0, pairs[0][0])

    key = tuple(map(part, x.order))
    tensor = x.keras
    if any(part != slice(None) for part in key):
        tensor = build.apply(node, "get_item", tensor, key)
    tensor = build.apply(node, "take_along_axis", tensor, where, axis=stored)
    return build.result(node, tensor, x.order)


@op("GatherND")
def gather_nd(node: Node, build: KerasBuilder) -> Tensor:
    """Slices at positions of the first axes."""
    if not build.is_constant(node, 1):
        return read_slices(node, build)
    x = build.onnx_order(build.tensor(node))
    where = build.constant(node, 1)
    batch = node.get("batch_dims", 0)
    depth = batch + where.shape[-1]
    sizes = [size for size in x.shape[:depth] if size is not None]
    if len(sizes) < depth:
        raise refuse(node, "it picks from axes of free size")
    grid = np.indices(where.shape[:batch]).reshape(batch, *where.shape[:batch])
    shape = (*where.shape[:-1], batch)
    lead = np.moveaxis(grid, 0, -1)
    lead = lead.reshape(*where.shape[:batch], *[1] * (where.ndim - 1 - batch), batch)
    full = np.concatenate([np.broadcast_to(lead, shape), where], axis=-1)
    full = np.where(full < 0, full + np.array(sizes), full)
    flat = np.ravel_multi_index(tuple(np.moveaxis(full, -1, 0)), tuple(sizes)).astype(np.int32)
    rows = tuple((int(np.prod(sizes)), *shape_[depth:]) for shape_ in x.shapes)
    tensor = build.reshape(x.keras, x.shapes, rows, f"{node.name}_rows")
    tensor = build.apply(node, "take", tensor, flat, axis=0)
    return build.result(node, tensor, identity(flat.ndim + x.rank - depth))
