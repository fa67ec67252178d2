"""Normalisations."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..builder import KerasBuilder
from ..graph import Node
from ..registry import op
from ..values import Tensor


@op("BatchNormalization")
def batch_normalization(node: Node, build: KerasBuilder) -> Tensor:
    """With stored statistics, per channel; old files may have them per element."""
    build.refuse_outputs(node, 1, "statistics of the batch")
    x = build.tensor(node)
    epsilon = node.get("epsilon", 1e-5)
    if node.get("spatial", 1) == 0 and x.rank > 2:
        return _per_element(node, build, x, epsilon)
    layer = build.layer(
        node,
        "BatchNormalization",
        axis=x.axis(1),
        epsilon=epsilon,
        momentum=node.get("momentum", 0.9),
    )
    y = layer(x.keras)
    for index, variable in enumerate(("gamma", "beta", "moving_mean", "moving_variance"), start=1):
        build.weight(node, index, layer, variable)
    return build.result(node, y, x.order)


def _per_element(node: Node, build: KerasBuilder, x: Tensor, epsilon: float) -> Tensor:
    scale, shift, mean, variance = (build.constant(node, i) for i in range(1, 5))
    factor = scale / np.sqrt(variance + np.float32(epsilon))
    offset = shift - mean * factor
    order = x.order
    y = build.apply(node, "multiply", x.keras, factor[None].transpose(order))
    return build.result(node, build.apply(node, "add", y, offset[None].transpose(order)), order)


@op("InstanceNormalization")
def instance_normalization(node: Node, build: KerasBuilder) -> Tensor:
    """Return each channel of each sample by itself."""
    return _grouped(node, build, -1)


@op("GroupNormalization")
def group_normalization(node: Node, build: KerasBuilder) -> Tensor:
    """Return each group of channels by itself; before opset 21 with one scale per group."""
    return _grouped(node, build, node.get("num_groups"))


def _grouped(node: Node, build: KerasBuilder, groups: int) -> Tensor:
    x = build.channels_last(build.tensor(node))
    channels = x.shapes[0][1]
    scale, shift = build.constant(node, 1), build.constant(node, 2)
    full = scale.size == channels and shift.size == channels
    layer = build.layer(
        node,
        "GroupNormalization",
        groups=groups,
        axis=-1,
        epsilon=node.get("epsilon", 1e-5),
        scale=full,
        center=full,
    )
    y = layer(x.keras)
    if full:
        build.weight(node, 1, layer, "gamma")
        build.weight(node, 2, layer, "beta")
        return build.result(node, y, x.order)
    each = channels // groups
    y = build.apply(node, "multiply", y, np.repeat(scale, each))
    return build.result(node, build.apply(node, "add", y, np.repeat(shift, each)), x.order)


@op("LayerNormalization", "RMSNormalization")
def layer_normalization(node: Node, build: KerasBuilder) -> Tensor | list[Tensor]:
    """Over the last axes of ONNX, wherever they are stored."""
    x = build.tensor(node)
    first = node.get("axis", -1) % x.rank
    axes = sorted(x.axis(axis) for axis in range(first, x.rank))
    wanted = x.shape[first:]
    given = [build.constant(node, i) for i in (1, 2) if node.has(i)]
    stock = all(array.shape == wanted for array in given) and axes[0] > 0
    if node.op == "RMSNormalization":  # Keras multiplies its scale as if it were the last axes'
        stock = stock and axes == list(range(first, x.rank))
    if not stock or any(build.is_used(name) for name in node.outputs[1:]):
        return _by_hand(node, build, x, axes)
    kept = tuple(x.order[axis] - first for axis in axes)
    config: dict[str, Any] = {"epsilon": node.get("epsilon", 1e-5)}
    if node.op == "RMSNormalization":
        config |= {"axis": axes if len(axes) > 1 else axes[0]}
    else:
        config |= {"axis": axes, "center": node.has(2)}
    layer = build.layer(node, node.op, **config)
    y = layer(x.keras)
    variable = "scale" if node.op == "RMSNormalization" else "gamma"
    build.weight(node, 1, layer, variable, lambda w: w.transpose(kept))
    if node.has(2):
        build.weight(node, 2, layer, "beta", lambda w: w.transpose(kept))
    return build.result(node, y, x.order)


def _by_hand(node: Node, build: KerasBuilder, x: Tensor, axes: list[int]) -> list[Tensor]:
    """Written out: where its mean and deviation are outputs too, or its scale is broadcast."""
    over = {"axis": tuple(axes), "keepdims": True}
    y = x.keras
    made = []
    if node.op == "LayerNormalization":
        mean = build.apply(node, "mean", y, **over)
        y = build.apply(node, "subtract", y, mean)
        made.append(mean)
    square = build.apply(node, "mean", build.apply(node, "square", y), **over)
    total = build.apply(node, "add", square, node.get("epsilon", 1e-5))
    deviation = build.apply(node, "rsqrt", total)
    made.append(deviation)
    y = build.apply(node, "multiply", y, deviation)
    for index, function in ((1, "multiply"), (2, "add")):
        if node.has(index):
            array = build.constant(node, index)
            array = array.reshape((1,) * (x.rank - array.ndim) + array.shape).transpose(x.order)
            y = build.apply(node, function, y, array)
    return [
        build.result(node, tensor, x.order, index)
        for index, tensor in enumerate([y, *made])
        if index < len(node.outputs) and node.outputs[index]
    ]


@op("LpNormalization")
def lp_normalization(node: Node, build: KerasBuilder) -> Tensor:
    """Divides by the 1- or 2-norm along an axis; where that is 0, the result is 0."""
    x = build.tensor(node)
    axis = x.axis(node.get("axis", -1))
    if node.get("p", 2) == 1:
        total = build.apply(
            node, "sum", build.apply(node, "absolute", x.keras), axis=axis, keepdims=True
        )
    else:
        square = build.apply(
            node, "sum", build.apply(node, "square", x.keras), axis=axis, keepdims=True
        )
        total = build.apply(node, "sqrt", square)
    total = build.apply(node, "maximum", total, float(np.finfo(np.float32).tiny))
    return build.result(node, build.apply(node, "divide", x.keras, total), x.order)


@op("MeanVarianceNormalization")
def mean_variance_normalization(node: Node, build: KerasBuilder) -> Tensor:
    """To mean 0 and variance 1 over some axes."""
    x = build.tensor(node)
    axes = tuple(x.axis(axis) for axis in node.get("axes", (0, 2, 3)))
    mean = build.apply(node, "mean", x.keras, axis=axes, keepdims=True)
    centred = build.apply(node, "subtract", x.keras, mean)
    square = build.apply(
        node, "mean", build.apply(node, "square", centred), axis=axes, keepdims=True
    )
    deviation = build.apply(node, "add", build.apply(node, "sqrt", square), 1e-9)
    return build.result(node, build.apply(node, "divide", centred, deviation), x.order)


@op("LRN")
def lrn(node: Node, build: KerasBuilder) -> Tensor:
    """Divides by the energy of the neighbouring channels (AlexNet)."""
    x = build.channels_last(build.tensor(node))
    size, channels = node.get("size"), x.shapes[0][1]
    before = (size - 1) // 2
    square = build.apply(node, "square", x.keras)
    pads = [(0, 0)] * (x.rank - 1) + [(before, size - 1 - before)]
    wide = build.apply(node, "pad", square, pads)
    whole = (slice(None),) * (x.rank - 1)
    energy = None
    for shift in range(size):
        part = build.view(node, wide, (*whole, slice(shift, shift + channels)))
        energy = part if energy is None else build.layer(node, "Add")([energy, part])
    scaled = build.apply(node, "multiply", energy, node.get("alpha", 1e-4) / size)
    root = build.apply(node, "add", scaled, node.get("bias", 1.0))
    power = build.apply(node, "power", root, node.get("beta", 0.75))
    return build.result(node, build.apply(node, "divide", x.keras, power), x.order)
