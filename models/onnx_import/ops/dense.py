"""Matrix products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dsconvert.base.predictor import Array

from ..builder import KerasBuilder
from ..graph import Node
from ..layout import after_transpose, identity
from ..registry import op
from ..values import Constant, Tensor


@op("Gemm")
def gemm(node: Node, build: KerasBuilder) -> Tensor:
    """Alpha A B + beta C: a Dense layer where B is a weight."""
    alpha, beta = float(node.get("alpha", 1.0)), float(node.get("beta", 1.0))
    turned = bool(node.get("transB", 0))
    if not _is_dense(node, build):
        return _gemm_of_tensors(node, build, alpha, beta)
    x = build.tensor(node, rows=not node.get("transA", 0))
    if node.get("transA", 0):
        x = Tensor(f"{x.name}/T", x.keras, after_transpose(x.order, (1, 0)), _turned(x))
    if x.rows is None:
        x = build.onnx_order(x)
    weight = build.constant(node, 1)
    units = weight.shape[0 if turned else 1]
    with_bias = node.has(2) and build.is_constant(node, 2)
    with_bias = with_bias and build.constant(node, 2).shape in ((units,), (1, units))
    rows = x.rows
    layer = build.layer(node, "Dense", units=int(units), use_bias=with_bias)
    y = layer(x.keras)
    build.weight(node, 1, layer, "kernel", _columns(rows, turned), alpha)
    if with_bias:
        build.weight(node, 2, layer, "bias", np.ravel, beta)
    elif node.has(2) and beta != 0:
        y = _plus(node, build, y, beta)
    return build.result(node, y, identity(2))


@op("MatMul")
def matmul(node: Node, build: KerasBuilder) -> Tensor:
    """Return a Dense layer where one side is a weight, along whichever axis that is."""
    if _is_dense(node, build):
        return _dense(node, build)
    left, right = build.value(node, 0), build.value(node, 1)
    mixes = isinstance(left, Constant) and left.value.ndim == 2
    if mixes and isinstance(right, Tensor) and right.rank > 1:
        return _dense_from_left(node, build, right)
    operands = [
        build.onnx_order(v).keras if isinstance(v, Tensor) else v.value for v in (left, right)
    ]
    y = build.apply(node, "matmul", *operands)
    return build.result(node, y, identity(len(build.output_shapes(node)[0])))


def _is_dense(node: Node, build: KerasBuilder) -> bool:
    return (
        isinstance(build.read(node.inputs[0]), Tensor)
        and build.is_constant(node, 1)
        and build.constant(node, 1).ndim == 2
    )


def _columns(rows: Array | None, turned: bool) -> Callable[[Array], Array]:
    """Kernel rows in the order in which the input is stored."""

    def arrange(w: Array) -> Array:
        w = w.T if turned else w
        return w if rows is None else w[rows]

    return arrange


def _dense(node: Node, build: KerasBuilder) -> Tensor:
    x = build.tensor(node, 0, rows=True)
    last = x.rank - 1
    if x.order[-1] != last:
        x = build.reorder(x, (*(axis for axis in x.order if axis != last), last))
    bias = build.bias_after(node, channel_axis=last)
    layer = build.layer(
        node, "Dense", units=int(build.constant(node, 1).shape[1]), use_bias=bias is not None
    )
    # Dense takes no vectors.
    tensor = build.apply(node, "expand_dims", x.keras, 0) if x.rank == 1 else x.keras
    y = layer(tensor)
    if x.rank == 1:
        y = build.apply(node, "squeeze", y, 0)
    build.weight(node, 1, layer, "kernel", _columns(x.rows, turned=False))
    if bias is not None:
        build.weight(*bias, layer, "bias", np.ravel)
    return build.result(node, y, x.order)


def _dense_from_left(node: Node, build: KerasBuilder, x: Tensor) -> Tensor:
    """W x mixes the second axis from the end: a Dense layer along that."""
    mixed = x.rank - 2
    if x.order[-1] != mixed:
        x = build.reorder(x, (*(axis for axis in x.order if axis != mixed), mixed))
    layer = build.layer(node, "Dense", units=int(build.constant(node, 0).shape[0]), use_bias=False)
    y = layer(x.keras)
    build.weight(node, 0, layer, "kernel", np.transpose)
    return build.result(node, y, x.order)


def _gemm_of_tensors(node: Node, build: KerasBuilder, alpha: float, beta: float) -> Tensor:
    operands: list[Any] = []
    for index, turn in ((0, "transA"), (1, "transB")):
        value = build.value(node, index)
        if isinstance(value, Constant):
            operands.append(value.value.T if node.get(turn, 0) else value.value)
            continue
        if node.get(turn, 0):
            order = after_transpose(value.order, (1, 0))
            value = Tensor(f"{value.name}/T", value.keras, order, _turned(value))
        operands.append(build.onnx_order(value).keras)
    y = build.apply(node, "matmul", *operands)
    if alpha != 1:
        y = build.apply(node, "multiply", y, alpha)
    return build.result(node, _plus(node, build, y, beta), identity(2))


def _plus(node: Node, build: KerasBuilder, y: Any, beta: float) -> Any:
    if not node.has(2) or beta == 0:
        return y
    added = build.value(node, 2)
    if isinstance(added, Constant):
        return build.apply(node, "add", y, added.value * np.float32(beta))
    term = build.onnx_order(added).keras
    if beta != 1:
        term = build.apply(node, "multiply", term, beta)
    return build.apply(node, "add", y, term)


def _turned(x: Tensor) -> tuple[tuple[int, ...], ...]:
    return tuple((b, a) for a, b in x.shapes)
