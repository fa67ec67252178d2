"""Operators that move elements without changing them: most of them only relabel axes."""

from __future__ import annotations

from collections.abc import Sequence

from dsconvert.base.predictor import Array

from .. import layout
from ..builder import KerasBuilder, stored_shapes
from ..graph import Node
from ..layout import Segment, after_transpose, segments
from ..registry import op
from ..values import Order, Sizes, Tensor

_DENSE = {"Gemm": ("transA",), "MatMul": ()}
_KEEPS_ROWS = ("Relu", "Identity", "Dropout")


@op("Identity")
def identity(node: Node, build: KerasBuilder) -> Tensor:
    """Nothing."""
    x = build.tensor(node, rows=True)
    return build.result(node, x.keras, x.order, rows=x.rows)


@op("Dropout")
def dropout(node: Node, build: KerasBuilder) -> Tensor:
    """Nothing in inference; a Dropout layer of the same rate for who trains on."""
    build.refuse_outputs(node, 1, "the mask of what was dropped")
    if node.has(2):
        build.constant(node, 2)  # whether it drops; a graph that does is refused before
    x = build.tensor(node, rows=True)
    rate = float(build.setting(node, "ratio", 1, 0.5))
    if not 0 < rate < 1:
        return build.result(node, x.keras, x.order, rows=x.rows)
    return build.result(
        node, build.layer(node, "Dropout", rate=rate)(x.keras), x.order, rows=x.rows
    )


@op("Transpose")
def transpose(node: Node, build: KerasBuilder) -> Tensor:
    """Relabels the axes; whoever needs them in another order moves them."""
    x = build.tensor(node)
    perm = node.get("perm", tuple(reversed(range(x.rank))))
    return build.result(node, x.keras, after_transpose(x.order, perm))


@op("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def reshape(node: Node, build: KerasBuilder) -> Tensor:
    """Splits and merges axes as they are stored, where that is the same as in ONNX' order.

    Where it is not, and all that reads the result are dense layers, those take the elements as
    they are stored, with the rows of their kernels in that order.
    """
    x = build.tensor(node, rows=True)
    after = build.output_shapes(node)
    if x.shapes == after and x.rank == len(after[0]):
        return build.result(node, x.keras, x.order, rows=x.rows)
    x = build.unflatten(x)
    pieces = segments(x.shapes, after)
    order = stored_order(x.order, pieces, after)
    rows = None
    if order is None:
        rows = _rows(x, pieces, after) if _only_dense(build, node.outputs[0]) else None
        if rows is None:
            x = build.reorder(x, _regrouped(x, pieces))
            order = stored_order(x.order, pieces, after)
        order = layout.identity(len(after[0])) if order is None else order
    y = build.reshape(
        x.keras, stored_shapes(x.shapes, x.order), stored_shapes(after, order), node.name
    )
    return build.result(node, y, order, rows=rows)


def _regrouped(x: Tensor, pieces: Sequence[Segment]) -> Order:
    """The stored order with the axes that are merged put side by side, where one of them is."""
    large = sorted(pieces, key=lambda piece: min(map(x.order.index, piece.before), default=0))
    order = [axis for piece in large for axis in piece.before]
    small = [axis for axis in range(x.rank) if axis not in order]
    at = 1 if order[:1] == [0] else 0
    return (*order[:at], *small, *order[at:])


def _rows(x: Tensor, pieces: Sequence[Segment], after: Sequence[Sizes]) -> Array | None:
    """Tell where a flattening of the stored tensor leaves the elements of ONNX' last axis.

    None unless the result is (N, rows), all sizes in a row are known, and the axes that make up N
    are stored first.
    """
    merged = pieces[-1].before
    sizes = tuple(x.shapes[0][axis] for axis in merged)
    front = [axis for piece in pieces[:-1] for axis in piece.before]
    stored = [axis for axis in x.order if axis in front or axis in merged]
    if len(after[0]) != 2 or pieces[-1].after != (1,) or None in [x.shape[a] for a in merged]:
        return None
    if stored[: len(front)] != front:
        return None
    return layout.flat_rows(sizes, tuple(merged.index(axis) for axis in stored[len(front) :]))


def stored_order(before: Order, pieces: Sequence[Segment], after: Sequence[Sizes]) -> Order | None:
    """The order in which a reshape of the stored tensor leaves the new axes, if it can be so."""
    kept = [axis for piece in pieces for axis in piece.before]
    stored = [axis for axis in before if axis in kept]
    large: list[int] = []
    while stored:
        piece = next((p for p in pieces if p.before and p.before[0] == stored[0]), None)
        if piece is None or tuple(stored[: len(piece.before)]) != piece.before:
            return None
        large.extend(piece.after)
        stored = stored[len(piece.before) :]
    rank = len(after[0])
    if rank > 3 and set(large) <= {0, 1}:  # (N, C, 1, 1): as images are stored
        return layout.channels_last(rank) if large in ([0, 1], [1], [0], []) else None
    if large == sorted(large):
        return layout.identity(rank)
    order = list(large)
    small = [axis for axis in range(rank) if axis not in large]
    for place, axis in enumerate(small):
        if axis == 0:
            order.insert(0, 0)
        else:
            order.insert(1 + place - (0 in small), axis)
    return tuple(order)


def _only_dense(build: KerasBuilder, name: str) -> bool:
    """Tell whether all that reads a value are dense layers, at most behind what keeps places."""
    if name in build.graph.outputs:
        return False
    for node in build.graph.consumers.get(name, ()):
        if node.op in _KEEPS_ROWS:
            if not _only_dense(build, node.outputs[0]):
                return False
            continue
        if (
            node.op not in _DENSE
            or node.domain
            or node.inputs[0] != name
            or node.inputs[1] in build.graph.changing
            or any(node.get(name, 0) for name in _DENSE[node.op])
        ):
            return False
    return True
