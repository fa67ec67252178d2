"""NonMaxSuppression and NonZero: results that are as long as the values decide."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..builder import KerasBuilder, refuse
from ..graph import Node
from ..layout import identity
from ..registry import op
from ..values import Constant, Tensor

_MOST_ROUNDS = 300
"""Boxes of a class, each of which takes a round of about twenty operations."""
_FAR = 1e3
"""A threshold below its negative is none: a value so far off leaves int8 scores no steps."""


@op("NonZero")
def non_zero(node: Node, build: KerasBuilder) -> Tensor:
    """Return where elements are not zero, one row for each axis."""
    x = build.onnx_order(build.tensor(node))
    places = build.apply(node, "nonzero", x.keras)
    rows = build.apply(node, "stack", list(places), axis=0)
    return build.result(node, build.apply(node, "cast", rows, "int64"), identity(2))


@op("NonMaxSuppression")
def non_max_suppression(node: Node, build: KerasBuilder) -> Tensor:
    """Keep the best box of each class, drop those that it covers, and begin anew.

    Boxes are (N, n, 4), scores (N, classes, n). Every round takes one box of each class.
    """
    limit = int(np.ravel(build.constant(node, 2, np.zeros(1)))[0])
    overlap = float(np.ravel(build.constant(node, 3, np.zeros(1)))[0])
    given = build.constant(node, 4)
    corners, scores = _operands(node, build)
    batch, classes, count = scores.shape
    rounds = min(limit, int(count or 0))
    if None in (batch, classes, count) or not 1 <= rounds <= _MOST_ROUNDS:
        raise refuse(
            node,
            f"boxes {(batch, count)} of {classes} classes, up to {limit} of each: all sizes have "
            f"to be fixed, and at most {_MOST_ROUNDS} boxes of a class be kept",
        )

    def do(function: str, *operands: Any, **options: Any) -> Any:
        return build.apply(node, function, *operands, **options)

    least: Any = -np.inf if given is None else float(np.ravel(given)[0])
    if least < -_FAR:
        least = do("subtract", do("min", scores, axis=-1, keepdims=True), 1.0)
    area = do("multiply", *(do("subtract", corners[i + 2], corners[i]) for i in (0, 1)))
    numbers = np.arange(count, dtype=np.int32)
    kept = []
    for _ in range(rounds):
        best = do("argmax", scores, axis=-1, keepdims=True)
        best = do("cast", best, "int32")
        score = do("max", scores, axis=-1, keepdims=True)
        kept.append(do("where", do("greater", score, least), best, -1))
        itself = do("equal", best, numbers)
        mark = do("cast", itself, "float32")
        one = [do("sum", do("multiply", mark, c), axis=-1, keepdims=True) for c in corners]
        own = do("sum", do("multiply", mark, area), axis=-1, keepdims=True)
        sides = [
            do(
                "maximum",
                do("subtract", do("minimum", one[i + 2], corners[i + 2]),
                   do("maximum", one[i], corners[i])),
                0.0,
            )
            for i in (0, 1)
        ]  # fmt: skip
        shared = do("multiply", *sides)
        union = do("subtract", do("add", area, own), shared)
        # shared / union > overlap, without a division by zero; boxes without an area cover nothing
        covered = do("greater", shared, do("multiply", union, overlap))
        covered = do("logical_and", covered, do("greater", shared, 0.0))
        gone = do("logical_or", covered, itself)
        scores = do("where", gone, least, scores)
    table = do("concatenate", kept, axis=-1)
    found = do("nonzero", do("greater_equal", table, 0))
    flat = do("reshape", table, (-1,))
    place = do("add", do("multiply", found[0], classes), found[1])
    place = do("add", do("multiply", place, rounds), found[2])
    box = do("take", flat, place, axis=0)
    columns = [do("cast", column, "int64") for column in (found[0], found[1], box)]
    return build.result(node, do("stack", columns, axis=1), identity(2))


def _operands(node: Node, build: KerasBuilder) -> tuple[list[Any], Any]:
    """Return the corners of the boxes, top, left, bottom, right as (N, 1, n), and the scores."""
    both = [build.value(node, index) for index in (0, 1)]
    near = next(x.keras for x in both if isinstance(x, Tensor))
    boxes, scores = (
        # 0: of constants alone nothing can be drawn, however small they are
        build.held(x.value, near, least=0) if isinstance(x, Constant) else build.onnx_order(x).keras
        for x in both
    )
    sides = [build.apply(node, "get_item", boxes, (..., i)) for i in range(4)]
    sides = [build.apply(node, "expand_dims", side, 1) for side in sides]
    if node.get("center_point_box", 0):
        x, y, width, height = sides
        half = [build.apply(node, "multiply", size, 0.5) for size in (height, width)]
        low = [build.apply(node, "subtract", at, h) for at, h in zip((y, x), half, strict=True)]
        high = [build.apply(node, "add", at, h) for at, h in zip((y, x), half, strict=True)]
        return [*low, *high], scores
    low = [build.apply(node, "minimum", sides[i], sides[i + 2]) for i in (0, 1)]
    high = [build.apply(node, "maximum", sides[i], sides[i + 2]) for i in (0, 1)]
    return [*low, *high], scores
