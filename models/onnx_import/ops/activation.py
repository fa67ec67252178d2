"""Activations."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..builder import KerasBuilder, refuse
from ..graph import Node
from ..registry import op
from ..values import Tensor
from .reduction import hits_of

_PLAIN = {"Sigmoid": "sigmoid", "Tanh": "tanh", "Softplus": "softplus", "Softsign": "softsign"}
_SELU = (1.6732632423543772, 1.0507009873554805)
"""Klambauer et al. 2017 (arXiv:1706.02515): alpha, and the scale."""


def _same_places(node: Node, build: KerasBuilder, x: Tensor, y: Any) -> Tensor:
    return build.result(node, y, x.order, rows=x.rows)


@op("Relu")
def relu(node: Node, build: KerasBuilder) -> Tensor:
    """max(x, 0)."""
    x = build.tensor(node, rows=True)
    return _same_places(node, build, x, build.layer(node, "ReLU")(x.keras))


@op(*_PLAIN)
def plain(node: Node, build: KerasBuilder) -> Tensor:
    """Return those without parameters."""
    x = build.tensor(node, rows=True)
    layer = build.layer(node, "Activation", activation=_PLAIN[node.op])
    return _same_places(node, build, x, layer(x.keras))


@op("Mish", "HardSwish", "Swish")
def smooth(node: Node, build: KerasBuilder) -> Tensor:
    """X times something between 0 and 1."""
    x = build.tensor(node, rows=True)
    alpha = node.get("alpha", 1.0)
    if node.op == "Swish" and alpha != 1:
        gate = build.apply(node, "sigmoid", build.apply(node, "multiply", x.keras, alpha))
        return _same_places(node, build, x, build.apply(node, "multiply", x.keras, gate))
    name = {"Mish": "mish", "HardSwish": "hard_silu", "Swish": "silu"}[node.op]
    return _same_places(node, build, x, build.layer(node, "Activation", activation=name)(x.keras))


@op("Gelu")
def gelu(node: Node, build: KerasBuilder) -> Tensor:
    """X Φ(x), or its approximation by tanh."""
    x = build.tensor(node, rows=True)
    approximate = node.get("approximate", "none") == "tanh"
    return _same_places(node, build, x, build.apply(node, "gelu", x.keras, approximate=approximate))


@op("LeakyRelu")
def leaky_relu(node: Node, build: KerasBuilder) -> Tensor:
    """X where it is positive, alpha x elsewhere."""
    x = build.tensor(node, rows=True)
    layer = build.layer(node, "LeakyReLU", negative_slope=node.get("alpha", 0.01))
    return _same_places(node, build, x, layer(x.keras))


@op("PRelu")
def prelu(node: Node, build: KerasBuilder) -> Tensor:
    """As LeakyRelu, with slopes that train: one, or one per channel, or per element."""
    x = build.tensor(node)
    if not build.is_constant(node, 1):
        return _slopes(node, build)
    shape = build.constant(node, 1).shape
    shape = (1,) * (x.rank - len(shape)) + shape
    if x.rank < 2 or shape[x.order[0]] != 1:  # one slope for each sample: nothing to be trained
        return _slopes(node, build)
    stored = tuple(shape[axis] for axis in x.order)
    layer = build.layer(
        node, "PReLU", shared_axes=[axis for axis in range(1, x.rank) if stored[axis] == 1]
    )
    y = layer(x.keras)
    order = x.order
    build.weight(node, 1, layer, "alpha", lambda w: w.reshape(shape).transpose(order)[0])
    return build.result(node, y, order)


def _slopes(node: Node, build: KerasBuilder) -> Tensor:
    """PRelu with slopes that are not weights."""
    (y, slope), order = build.align(node)
    negative = build.apply(node, "multiply", build.apply(node, "minimum", y, 0.0), slope)
    positive = build.apply(node, "relu", y)
    return build.result(node, build.apply(node, "add", positive, negative), order)


@op("Elu", "Celu")
def elu(node: Node, build: KerasBuilder) -> Tensor:
    """X where it is positive, alpha (exp x − 1) or alpha (exp(x/alpha) − 1) elsewhere."""
    x = build.tensor(node, rows=True)
    alpha = node.get("alpha", 1.0)
    if node.op == "Elu" or alpha == 1:
        return _same_places(node, build, x, build.layer(node, "ELU", alpha=alpha)(x.keras))
    return _same_places(node, build, x, build.apply(node, "celu", x.keras, alpha=alpha))


@op("Selu")
def selu(node: Node, build: KerasBuilder) -> Tensor:
    """Gamma elu(x, alpha)."""
    x = build.tensor(node, rows=True)
    alpha, gamma = node.get("alpha", _SELU[0]), node.get("gamma", _SELU[1])
    if np.allclose((alpha, gamma), _SELU, rtol=1e-6, atol=0):
        layer = build.layer(node, "Activation", activation="selu")
        return _same_places(node, build, x, layer(x.keras))
    y = build.layer(node, "ELU", suffix="_elu", alpha=alpha)(x.keras)
    return _same_places(node, build, x, build.apply(node, "multiply", y, gamma))


@op("ThresholdedRelu")
def thresholded_relu(node: Node, build: KerasBuilder) -> Tensor:
    """X where it is larger than alpha, 0 elsewhere."""
    x = build.tensor(node, rows=True)
    above = build.apply(node, "greater", x.keras, node.get("alpha", 1.0))
    gate = build.apply(node, "cast", above, "float32")
    return _same_places(node, build, x, build.apply(node, "multiply", x.keras, gate))


@op("HardSigmoid")
def hard_sigmoid(node: Node, build: KerasBuilder) -> Tensor:
    """Alpha x + beta, cut off at 0 and 1."""
    x = build.tensor(node, rows=True)
    alpha, beta = node.get("alpha", 0.2), node.get("beta", 0.5)
    if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5:
        layer = build.layer(node, "Activation", activation="hard_sigmoid")
        return _same_places(node, build, x, layer(x.keras))
    y = build.apply(node, "add", build.apply(node, "multiply", x.keras, alpha), beta)
    return _same_places(node, build, x, build.apply(node, "clip", y, 0.0, 1.0))


@op("Clip")
def clip(node: Node, build: KerasBuilder) -> Tensor:
    """Cuts off at a smallest and a largest value: attributes, or inputs from opset 11 on."""
    x = build.tensor(node, rows=True)
    limits: list[Any] = []
    for index, name in ((1, "min"), (2, "max")):
        if node.has(index) and not build.is_constant(node, index):
            limits.append(build.tensor(node, index).keras)
            continue
        limit = build.setting(node, name, index)
        value = None if limit is None or np.size(limit) == 0 else np.asarray(limit).item()
        far = value is not None and abs(value) >= float(np.finfo(np.float32).max)
        limits.append(None if far else value)
    low, high = limits
    floats = str(x.keras.dtype).startswith("float")
    rectifies = floats and isinstance(low, float) and low == 0
    if rectifies and (high is None or (isinstance(high, float) and high > 0)):
        layer = build.layer(node, "ReLU", max_value=high)
        return _same_places(node, build, x, layer(x.keras))
    y = x.keras
    if low is not None:
        y = build.apply(node, "maximum", y, _typed(low, y))
    if high is not None:
        y = build.apply(node, "minimum", y, _typed(high, y))
    return _same_places(node, build, x, y)


def _typed(limit: Any, like: Any) -> Any:
    return np.asarray(limit, like.dtype) if isinstance(limit, int | float) else limit


@op("Softmax", "LogSoftmax", "Hardmax")
def softmax(node: Node, build: KerasBuilder) -> Tensor:
    """Along one axis; before opset 13 along all axes from one on."""
    x = build.tensor(node)
    if node.opset >= 13:
        axes = [node.get("axis", -1) % x.rank]
    else:
        first = node.get("axis", 1) % x.rank
        axes = [a for a in range(first, x.rank) if x.shape[a] != 1] or [first]
    places = [x.axis(axis) for axis in axes]
    if node.op == "Softmax":
        axis = places[0] if len(places) == 1 else places
        return build.result(node, build.layer(node, "Softmax", axis=axis)(x.keras), x.order)
    if node.op == "LogSoftmax":
        if len(places) == 1:
            y = build.apply(node, "log_softmax", x.keras, axis=places[0])
            return build.result(node, y, x.order)
        total = build.apply(node, "logsumexp", x.keras, axis=tuple(places), keepdims=True)
        return build.result(node, build.apply(node, "subtract", x.keras, total), x.order)
    if len(places) > 1:
        raise refuse(node, "it goes over several axes at once")
    size = x.keras.shape[places[0]]
    if size is None:
        raise refuse(node, "the size of its axis is free")
    hits = hits_of(node, build, x.keras, "max", places[0])
    first = build.apply(node, "argmax", hits, axis=places[0], keepdims=True)
    shape = [size if axis == places[0] else 1 for axis in range(x.rank)]
    chosen = build.apply(node, "equal", first, np.arange(size, dtype=np.int32).reshape(shape))
    return build.result(node, build.apply(node, "cast", chosen, "float32"), x.order)
