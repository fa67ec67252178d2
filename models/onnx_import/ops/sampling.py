"""OneHot, and GridSample of images and volumes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np

from ..builder import KerasBuilder, refuse
from ..graph import Node
from ..layout import channels_last, identity
from ..registry import op
from ..values import Tensor

_NEAREST, _LINEAR, _CUBIC = "nearest", "linear", "cubic"
_MODES = {
    **{"nearest": _NEAREST, "linear": _LINEAR, "bilinear": _LINEAR},
    **{"cubic": _CUBIC, "bicubic": _CUBIC},
}
"""What GridSample calls them before opset 20, and from then on."""
_A = -0.75
_KEYS = (
    (_A, -2 * _A, _A, 0.0),
    (_A + 2, -(_A + 3), 0.0, 1.0),
    (-(_A + 2), 2 * _A + 3, -_A, 0.0),
    (-_A, _A, 0.0, 0.0),
)
"""Of each of four pixels its share, a polynomial of how far the place is behind the second."""


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
    """Values of an image or a volume at places between its pixels, given in −1 … 1.

    Pixels outside the image are zero, those of the edge, or those that are mirrored there.
    """
    mode, padding = _MODES[node.get("mode", "linear")], node.get("padding_mode", "zeros")
    x = build.channels_last(build.tensor(node))
    sizes = [size for size in x.shape[2:] if size is not None]
    if len(sizes) < x.rank - 2:
        raise refuse(
            node,
            "an image of free size",
            "Give real inputs with --data, to whose size free sizes are fixed.",
        )
    grid = _grid(node, build, x)
    rows = build.apply(node, "reshape", x.keras, (-1, math.prod(sizes), int(x.shape[1] or 0)))
    places = [  # of the last axis the grid tells first
        _pixels(node, build, build.apply(node, "get_item", grid, (..., axis)), size)
        for axis, size in zip(range(len(sizes) - 1, -1, -1), sizes, strict=True)
    ]
    if mode == _NEAREST:
        places = [build.apply(node, "round", place) for place in places]
    around = {_NEAREST: _itself, _LINEAR: _neighbours, _CUBIC: _four}[mode]
    corners = [around(node, build, place) for place in places]
    if padding == "reflection":
        corners = [
            [(_mirrored(node, build, cell, size), share) for cell, share in taps]
            for taps, size in zip(corners, sizes, strict=True)
        ]
    total = None
    for taps in product(*corners):
        value = _picked(node, build, rows, [cell for cell, _ in taps], sizes, padding)
        for _, share in taps:
            if share is not None:
                wide = build.apply(node, "expand_dims", share, -1)
                value = build.apply(node, "multiply", value, wide)
        total = value if total is None else build.apply(node, "add", total, value)
    return build.result(node, total, channels_last(x.rank))


def _grid(node: Node, build: KerasBuilder, x: Tensor) -> Any:
    """Return the places as a Keras tensor, (n, H, W, 2)."""
    value = build.value(node, 1)
    if isinstance(value, Tensor):
        return build.onnx_order(value).keras
    corner = (slice(None), *[slice(0, 1)] * (x.rank - 1))
    zero = build.apply(node, "zeros_like", build.apply(node, "get_item", x.keras, corner))
    return build.apply(node, "add", zero, build.held(value.value, x.keras))


def _pixels(node: Node, build: KerasBuilder, place: Any, size: int) -> Any:
    """Return −1 … 1 as a place in pixels."""
    if node.get("align_corners", 0):
        factor, shift = (size - 1) / 2, (size - 1) / 2
    else:
        factor, shift = size / 2, (size - 1) / 2
    return build.apply(node, "add", build.apply(node, "multiply", place, factor), shift)


def _mirrored(node: Node, build: KerasBuilder, cell: Any, size: int) -> Any:
    """Return a pixel as it is inside, or mirrored at the ends as often as it takes.

    The ends are the outer pixels' centres where corners are aligned, else their edges.
    """
    low = 0.0 if node.get("align_corners", 0) else -0.5
    period = 2 * (size - 1 - 2 * low)
    if not period:  # of a single pixel, at whose centre both ends are
        return build.apply(node, "multiply", cell, 0.0)
    way = build.apply(node, "absolute", build.apply(node, "subtract", cell, low))
    way = build.apply(node, "mod", way, period)
    way = build.apply(node, "minimum", way, build.apply(node, "subtract", period, way))
    return build.apply(node, "add", way, low)


def _itself(node: Node, build: KerasBuilder, place: Any) -> list[tuple[Any, Any]]:
    """Return the pixel at a whole place."""
    del node, build
    return [(place, None)]


def _four(node: Node, build: KerasBuilder, place: Any) -> list[tuple[Any, Any]]:
    """Return the four pixels around a place with their shares of a cubic (Keys, a = −0.75)."""
    low = build.apply(node, "floor", place)
    share = build.apply(node, "subtract", place, low)
    found = []
    for tap, terms in zip((-1.0, 0.0, 1.0, 2.0), _KEYS, strict=True):
        part: Any = terms[0]
        for term in terms[1:]:  # Horner's scheme
            part = build.apply(node, "multiply", share, part)
            part = build.apply(node, "add", part, term) if term else part
        found.append((build.apply(node, "add", low, tap), part))
    return found


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
    place: Sequence[Any],
    sizes: Sequence[int],
    padding: str,
) -> Any:
    """Return the pixels at whole places, (n, ..., C); what lies outside is zero or the edge."""
    inside = [
        build.apply(node, "clip", one, 0, size - 1) for one, size in zip(place, sizes, strict=True)
    ]
    flat = inside[0]
    for one, size in zip(inside[1:], sizes[1:], strict=True):
        flat = build.apply(node, "add", build.apply(node, "multiply", flat, size), one)
    index = build.apply(node, "cast", flat, "int32")
    targets = tuple(index.shape[1:])
    index = build.apply(node, "reshape", index, (-1, math.prod(targets), 1))
    found = build.apply(node, "take_along_axis", rows, index, axis=1)
    found = build.apply(node, "reshape", found, (-1, *targets, rows.shape[-1]))
    if padding != "zeros":
        return found
    for one, own in zip(place, inside, strict=True):
        same = build.apply(node, "cast", build.apply(node, "equal", one, own), "float32")
        found = build.apply(node, "multiply", found, build.apply(node, "expand_dims", same, -1))
    return found
