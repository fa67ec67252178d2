"""OneHot, and GridSample of images."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..builder import KerasBuilder, refuse
from ..graph import Node
from ..layout import identity
from ..registry import op
from ..values import Tensor


@op("OneHot")
def one_hot(node: Node, build: KerasBuilder) -> Tensor:
    """A row for each index, of one value but at one place."""
    x = build.onnx_order(build.tensor(node))
    depth = int(np.ravel(build.constant(node, 1))[0])
    values = build.constant(node, 2)
    kind = "float32" if values.dtype.kind == "f" else "int32"
    off, on = values.tolist()
    axis = node.get("axis", -1) % (x.rank + 1)
    index = build.apply(node, "cast", x.keras, "int32")
    below = build.apply(node, "less", index, 0)
    index = build.apply(node, "where", below, build.apply(node, "add", index, depth), index)
    place = -1 if axis == x.rank else axis  # which Keras counts among the axes of the index
    hot = build.apply(node, "one_hot", index, depth, axis=place, dtype=kind)
    if (off, on) != (0, 1):
        hot = build.apply(node, "add", build.apply(node, "multiply", hot, on - off), off)
    return build.result(node, hot, identity(x.rank + 1))


@op("GridSample")
def grid_sample(node: Node, build: KerasBuilder) -> Tensor:
    """Values of an image at places between its pixels, which another tensor gives in −1 … 1."""
    mode = node.get("mode", "linear")
    padding = node.get("padding_mode", "zeros")
    x = build.tensor(node)
    if x.rank != 4 or mode not in ("linear", "bilinear", "nearest") or padding == "reflection":
        raise refuse(node, f"the mode {mode!r} with {padding!r} outside, for {x.rank} axes")
    x = build.channels_last(x)
    height, width = x.shape[2], x.shape[3]
    if height is None or width is None:
        raise refuse(
            node,
            "an image of free size",
            "Give real inputs with --data, to whose size free sizes are fixed.",
        )
    grid = _grid(node, build, x)
    rows = build.apply(node, "reshape", x.keras, (-1, height * width, int(x.shape[1] or 0)))
    places = [
        _pixels(node, build, build.apply(node, "get_item", grid, (..., axis)), size)
        for axis, size in ((0, width), (1, height))
    ]
    if mode == "nearest":
        corners = [[(build.apply(node, "round", place), None)] for place in places]
    else:
        corners = [_neighbours(node, build, place) for place in places]
    total = None
    for column, across in corners[0]:
        for row, down in corners[1]:
            value = _picked(node, build, rows, (row, column), (height, width), padding)
            for share in (across, down):
                if share is not None:
                    wide = build.apply(node, "expand_dims", share, -1)
                    value = build.apply(node, "multiply", value, wide)
            total = value if total is None else build.apply(node, "add", total, value)
    return build.result(node, total, (0, 2, 3, 1))


def _grid(node: Node, build: KerasBuilder, x: Tensor) -> Any:
    """Return the places as a Keras tensor, (n, H, W, 2)."""
    value = build.value(node, 1)
    if isinstance(value, Tensor):
        return build.onnx_order(value).keras
    corner = (slice(None), slice(0, 1), slice(0, 1), slice(0, 1))
    zero = build.apply(node, "zeros_like", build.apply(node, "get_item", x.keras, corner))
    return build.apply(node, "add", zero, build.held(value.value, x.keras))


def _pixels(node: Node, build: KerasBuilder, place: Any, size: int) -> Any:
    """Return −1 … 1 as a place in pixels."""
    if node.get("align_corners", 0):
        factor, shift = (size - 1) / 2, (size - 1) / 2
    else:
        factor, shift = size / 2, (size - 1) / 2
    return build.apply(node, "add", build.apply(node, "multiply", place, factor), shift)


def _neighbours(node: Node, build: KerasBuilder, place: Any) -> list[tuple[Any, Any]]:
    """Return the pixels before and behind a place, with the share that each has."""
    low = build.apply(node, "floor", place)
    share = build.apply(node, "subtract", place, low)
    rest = build.apply(node, "subtract", 1.0, share)
    return [(low, rest), (build.apply(node, "add", low, 1.0), share)]


def _picked(
    node: Node,
    build: KerasBuilder,
    rows: Any,
    place: tuple[Any, Any],
    sizes: tuple[int, int],
    padding: str,
) -> Any:
    """Return the pixels at whole places, (n, H, W, C); what lies outside is zero or the edge."""
    inside = [
        build.apply(node, "clip", one, 0, size - 1) for one, size in zip(place, sizes, strict=True)
    ]
    flat = build.apply(node, "add", build.apply(node, "multiply", inside[0], sizes[1]), inside[1])
    index = build.apply(node, "cast", flat, "int32")
    height, width = index.shape[1:]
    index = build.apply(node, "reshape", index, (-1, height * width, 1))
    found = build.apply(node, "take_along_axis", rows, index, axis=1)
    found = build.apply(node, "reshape", found, (-1, height, width, rows.shape[-1]))
    if padding != "zeros":
        return found
    for one, own in zip(place, inside, strict=True):
        same = build.apply(node, "cast", build.apply(node, "equal", one, own), "float32")
        found = build.apply(node, "multiply", found, build.apply(node, "expand_dims", same, -1))
    return found
