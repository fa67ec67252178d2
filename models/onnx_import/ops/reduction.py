"""Operators that put one value in place of an axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..builder import KerasBuilder, refuse
from ..graph import Node
from ..layout import after_squeeze, channels_last
from ..registry import op
from ..values import Order, Tensor

_BEFORE = {
    "ReduceL1": "absolute",
    "ReduceL2": "square",
    "ReduceSumSquare": "square",
}
_REDUCE = {
    "ReduceSum": "sum",
    "ReduceMean": "mean",
    "ReduceMax": "max",
    "ReduceMin": "min",
    "ReduceProd": "prod",
    "ReduceL1": "sum",
    "ReduceL2": "sum",
    "ReduceSumSquare": "sum",
    "ReduceLogSum": "sum",
    "ReduceLogSumExp": "logsumexp",
}
_AFTER = {"ReduceL2": "sqrt", "ReduceLogSum": "log"}
_POOLS = {"ReduceMean": "GlobalAveragePooling2D", "ReduceMax": "GlobalMaxPooling2D"}


@op(*_REDUCE)
def reduction(node: Node, build: KerasBuilder) -> Tensor:
    """Over axes that are an attribute or an input; over all where there are none."""
    x = build.tensor(node)
    given = build.setting(node, "axes", 1)
    axes = [] if given is None else [int(axis) % x.rank for axis in given]
    if not axes and not node.get("noop_with_empty_axes", 0):
        axes = list(range(x.rank))
    keep = bool(node.get("keepdims", 1))
    order = reduced(x.order, axes, keep)
    kind = x.keras.dtype
    if node.op in _POOLS and x.order == channels_last(4) and sorted(axes) == [2, 3]:
        pool = build.layer(node, _POOLS[node.op], keepdims=keep, data_format="channels_last")
        return build.result(node, pool(x.keras), order)
    result = x.keras
    if node.op in _BEFORE:
        result = build.apply(node, _BEFORE[node.op], result)
    if axes:
        function = _REDUCE[node.op]
        if kind == "bool":
            function = {"max": "any", "min": "all"}[function]
        where = tuple(x.axis(axis) for axis in axes)
        result = build.apply(node, function, result, axis=where, keepdims=keep)
    elif node.op == "ReduceLogSumExp":
        return build.result(node, result, order)
    if node.op in _AFTER:
        result = build.apply(node, _AFTER[node.op], result)
    if result.dtype != kind:
        result = build.apply(node, "cast", result, kind)
    return build.result(node, result, order)


@op("ArgMax", "ArgMin")
def extremum(node: Node, build: KerasBuilder) -> Tensor:
    """Return the position of the largest or smallest value: the first of several, or the last."""
    x = build.tensor(node)
    axis = node.get("axis", 0) % x.rank
    stored = x.axis(axis)
    keep = bool(node.get("keepdims", 1))
    hits = hits_of(node, build, x.keras, "max" if node.op == "ArgMax" else "min", stored)
    last = bool(node.get("select_last_index", 0))
    if last:
        hits = build.apply(node, "flip", hits, axis=stored)
    result = build.apply(node, "argmax", hits, axis=stored, keepdims=keep)
    if last:
        size = x.shape[axis]
        if size is None:
            raise refuse(node, "select_last_index over an axis of free size")
        result = build.apply(node, "subtract", size - 1, result)
    result = build.apply(node, "cast", result, "int64")
    return build.result(node, result, reduced(x.order, [axis], keep))


def hits_of(node: Node, build: KerasBuilder, tensor: Any, find: str, axis: int) -> Any:
    """1 where the largest ("max") or smallest value of an axis is, else 0: for an argmax.

    Keras' own argmax of floats puts −0 below 0, with operations that TFLite lacks.
    """
    best = build.apply(node, find, tensor, axis=axis, keepdims=True)
    return build.apply(node, "cast", build.apply(node, "equal", tensor, best), "int32")


@op("TopK")
def top(node: Node, build: KerasBuilder) -> Sequence[Tensor]:
    """Return the largest or smallest values along an axis, and where they are."""
    x = build.tensor(node)
    axis = node.get("axis", -1) % x.rank
    count = int(build.setting(node, "k", 1)[0] if node.has(1) else node.attributes["k"])
    order = (*(a for a in x.order if a != axis), axis)  # Keras looks along the last axis
    tensor = build.reorder(x, order).keras
    largest = node.get("largest", 1)
    if not largest:
        tensor = build.apply(node, "negative", tensor)
    values, indices = build.apply(node, "top_k", tensor, count)
    if not largest:
        values = build.apply(node, "negative", values)
    indices = build.apply(node, "cast", indices, "int64")
    return [build.result(node, values, order, 0), build.result(node, indices, order, 1)]


@op("CumSum")
def cumulative_sum(node: Node, build: KerasBuilder) -> Tensor:
    """Running sums along an axis, in either direction, with or without each element itself."""
    x = build.tensor(node)
    axis = x.axis(int(build.constant(node, 1).ravel()[0]))
    result = x.keras
    if node.get("reverse", 0):
        result = build.apply(node, "flip", result, axis=axis)
    if node.get("exclusive", 0):
        shift = [(1, 0) if k == axis else (0, 0) for k in range(x.rank)]
        result = build.apply(node, "pad", result, shift)
        key = tuple(slice(None, -1) if k == axis else slice(None) for k in range(x.rank))
        result = build.apply(node, "get_item", result, key)
    result = build.apply(node, "cumsum", result, axis=axis)
    if node.get("reverse", 0):
        result = build.apply(node, "flip", result, axis=axis)
    return build.result(node, result, x.order)


def reduced(order: Order, axes: Sequence[int], keep: bool) -> Order:
    """Return the order after a reduction."""
    return order if keep else after_squeeze(order, axes)
