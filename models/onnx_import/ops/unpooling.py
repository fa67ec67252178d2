"""Where the largest values of windows are, and values put back to such places."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..builder import KerasBuilder, refuse
from ..graph import Node
from ..layout import channels_last, identity
from ..registry import op
from ..values import Sizes, Tensor
from ..windows import Window, read_windows
from .scatter import picked

_LOWEST = float(np.finfo(np.float32).min)
_EXACT = 1 << 24
"""Whole numbers up to which float32 holds each one."""
_FIX = "Fix the sizes of the model's inputs before importing."


def largest_places(node: Node, build: KerasBuilder, x: Tensor, windows: Sequence[Window]) -> Tensor:
    """Return where the largest value of each window is, as the second output of MaxPool.

    A place is the number of the element in the whole input, samples and channels counted too.

    Args:
        node: The MaxPool.
        build: What draws.
        x: Its input, channels last.
        windows: Along each of the inner axes.
    """
    channels = x.shape[1]
    if any(window.is_free for window in windows) or channels is None:
        raise refuse(node, "the places of the largest values in an image of free size", _FIX)
    sizes = [window.sizes[0] for window in windows]
    padding = [w.needed(size) for w, size in zip(windows, sizes, strict=True)]
    y = x.keras
    if any(map(any, padding)):
        y = build.apply(node, "pad", y, [(0, 0), *padding, (0, 0)], constant_values=_LOWEST)
    strides = _strides(sizes, columns=bool(node.get("storage_order", 0)))
    best: Any = None
    place: Any = None
    for taps in itertools.product(*(range(w.kernel) for w in windows)):
        part, here = y, np.zeros((1,) * x.rank, np.int32)
        key: list[slice] = [slice(None)]
        for axis, (tap, w, size) in enumerate(zip(taps, windows, sizes, strict=True)):
            first, count = tap * w.dilation, w.count(size)
            key.append(slice(first, first + (count - 1) * w.stride + 1, w.stride))
            at = (np.arange(count) * w.stride + first - padding[axis][0]) * strides[axis]
            here = here + at.reshape(-1, *[1] * (len(sizes) - axis)).astype(np.int32)
        part = build.view(node, y, (*key, slice(None)))
        if best is None:
            zero = build.apply(node, "cast", build.apply(node, "zeros_like", part), "int32")
            best, place = part, build.apply(node, "subtract", zero, -here)
            continue
        place = build.apply(node, "where", build.apply(node, "greater", part, best), here, place)
        best = build.apply(node, "maximum", part, best)
    whole = math.prod(sizes)
    place = build.apply(node, "subtract", place, -np.arange(channels, dtype=np.int32) * whole)
    one = build.apply(node, "get_item", place, (slice(None), *[slice(0, 1)] * (x.rank - 1)))
    number = build.apply(node, "cumsum", build.apply(node, "ones_like", one), axis=0)
    before = build.apply(
        node, "multiply", build.apply(node, "subtract", number, 1), -channels * whole
    )
    place = build.apply(node, "subtract", place, before)
    return build.result(node, build.apply(node, "cast", place, "int64"), channels_last(x.rank), 1)


@op("MaxUnpool")
def max_unpool(node: Node, build: KerasBuilder) -> Tensor:
    """Put values back where a MaxPool of windows side by side found them; zeros elsewhere.

    As in ONNX Runtime, places are counted in the output as it is asked for.
    """
    x = build.tensor(node)
    if len(set(build.output_shapes(node))) == 1 and build.is_constant(node, 1):
        whole = build.output_shapes(node)[0]
        operands = [np.zeros(math.prod(whole), np.float32), build.onnx_order(x).keras]
        made = picked(node, build, operands, whole, build.constant(node, 1))
        return build.result(node, made, identity(x.rank))
    windows = read_windows(node, x.shapes, node.get("kernel_shape"))
    room = build.output_shapes(node)[0][2:]
    if any(w.is_free for w in windows) or len({one[2:] for one in build.output_shapes(node)}) > 1:
        raise refuse(node, "an image of free size", _FIX)
    if math.prod(room) > _EXACT:
        raise refuse(node, f"places in {tuple(room)}: at most {_EXACT} can be told apart")
    _check_pool(node, build, windows, room)
    order, inner = channels_last(x.rank), len(windows)
    where = build.reorder(build.tensor(node, 1), order)
    local = build.apply(node, "mod", where.keras, np.array(math.prod(room), np.int64))
    local = build.apply(node, "cast", local, "float32")
    kernel = tuple(w.kernel for w in windows)
    large, at = (
        build.layer(node, f"UpSampling{inner}D", size=kernel if inner > 1 else kernel[0])(one)
        for one in (build.reorder(x, order).keras, local)
    )
    sizes = [w.sizes[0] * w.stride for w in windows]
    numbers = np.arange(math.prod(room), dtype=np.float32).reshape(1, *room, 1)
    numbers = numbers[(slice(None), *map(slice, sizes))]
    made = build.apply(node, "where", build.apply(node, "equal", at, numbers), large, 0.0)
    more = [(0, have - size) for have, size in zip(room, sizes, strict=True)]
    if any(map(any, more)):  # what no window reached
        made = build.apply(node, "pad", made, [(0, 0), *more, (0, 0)])
    return build.result(node, made, order)


def _check_pool(node: Node, build: KerasBuilder, windows: Sequence[Window], room: Sizes) -> None:
    """Refuse places that need not be inside their own window.

    Raises:
        InputError: If they are not those of a MaxPool of what has the output's size, whose windows
            stand side by side.
    """
    pool = build.graph.producers.get(node.inputs[1])
    if pool is not None and pool.op == "MaxPool" and not pool.get("storage_order", 0):
        shapes = build.sizes(pool.inputs[0])
        theirs = read_windows(pool, shapes, pool.get("kernel_shape"))
        same = all(
            a.kernel == a.stride == b.kernel == b.stride and a.is_valid and a.dilation == 1
            for a, b in zip(theirs, windows, strict=True)
        )
        if same and shapes[0][2:] == room:
            return
    raise refuse(
        node,
        "its places are not those of a MaxPool with the same windows, side by side, of what has "
        f"the size {tuple(room)}",
    )


def _strides(sizes: Sequence[int], *, columns: bool) -> list[int]:
    """Return how far neighbours along each axis are apart, by rows or by columns."""
    if columns:
        return [math.prod(sizes[:axis]) for axis in range(len(sizes))]
    return [math.prod(sizes[axis + 1 :]) for axis in range(len(sizes))]
