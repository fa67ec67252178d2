"""Operators that ONNX Runtime knows and ONNX does not, spelled out in ONNX's own.

They are those of its own domain that its optimiser writes, and ONNX's experimental ones of before
opset 7, which ONNX dropped. The quantizer does not know the types of their results, onnx cannot
convert them to another opset, and the import does not know them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from dsconvert.base.predictor import Array

from .graph import OnnxGraph, all_names, attributes, fresh_name
from .messages import assign, copied
from .tensors import DOMAINS

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

_DOMAIN = "com.microsoft"
_CAST_LIKE = 15
"""The opset from which a number can be given the type of another value."""
_END = np.iinfo(np.int64).max
_ACTIVATIONS: dict[str, tuple[str, ...]] = {
    "Relu": (),
    "Tanh": (),
    "Sigmoid": (),
    "LeakyRelu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"),
}
"""Of FusedConv, with the names of its ``activation_params``."""


class _Speller:
    """Writes nodes in place of one, the last of which gives its result.

    Args:
        node: The one.
        taken: The names in the graph.
        typed: Whether numbers get the type of what they are combined with, which float32 has not.
    """

    def __init__(self, node: NodeProto, taken: set[str], *, typed: bool) -> None:
        self.node, self.given = node, attributes(node)
        self._taken, self._typed = taken, typed
        self.nodes: list[NodeProto] = []
        self.weights: list[TensorProto] = []

    def number(self, value: float | Array) -> str:
        """Return the name of a constant of the values' type."""
        from onnx import numpy_helper

        name = fresh_name(f"{self.node.output[0]}_number", self._taken)
        self.weights.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
        return self.make("CastLike", name, self.node.input[0]) if self._typed else name

    def make(self, kind: str, *inputs: str, **given: Any) -> str:
        """Add a node, and return the name of what it makes."""
        from onnx import helper

        made = fresh_name(f"{self.node.output[0]}_{kind}", self._taken)
        self.nodes.append(helper.make_node(kind, inputs, [made], made, **given))
        return made


def _gelu(to: _Speller, x: str) -> str:
    erf = to.make("Erf", to.make("Mul", x, to.number(math.sqrt(0.5))))
    return to.make("Mul", to.make("Mul", x, to.number(0.5)), to.make("Add", erf, to.number(1.0)))


def _fast_gelu(to: _Speller, x: str) -> str:
    cube = to.make("Mul", to.make("Mul", x, x), x)
    inner = to.make("Add", x, to.make("Mul", cube, to.number(0.044715)))
    tanh = to.make("Tanh", to.make("Mul", inner, to.number(math.sqrt(2 / math.pi))))
    return to.make("Mul", to.make("Mul", x, to.number(0.5)), to.make("Add", tanh, to.number(1.0)))


def _quick_gelu(to: _Speller) -> str:
    x = to.node.input[0]
    scaled = to.make("Mul", x, to.number(to.given.get("alpha", 1.702)))
    return to.make("Mul", x, to.make("Sigmoid", scaled))


def _biased(to: _Speller) -> str:
    inputs = [name for name in to.node.input if name]
    return to.make("Add", *inputs) if len(inputs) == 2 else inputs[0]


def _fused_conv(to: _Speller) -> str | None:
    kind, values = to.given.get("activation", ""), to.given.get("activation_params", ())
    if kind not in _ACTIVATIONS or len(values) != len(_ACTIVATIONS[kind]):
        return None
    own = {k: v for k, v in to.given.items() if not k.startswith("activation")}
    conv = to.make("Conv", *to.node.input[:3], **own)
    if len(to.node.input) > 3 and to.node.input[3]:
        conv = to.make("Add", conv, to.node.input[3])
    return to.make(kind, conv, **dict(zip(_ACTIVATIONS[kind], values, strict=True)))


def _image_scaler(to: _Speller) -> str:
    """Write scale·x + bias, a bias for each channel of (n, C, H, W)."""
    bias = np.reshape(np.asarray(to.given["bias"], np.float32), (-1, 1, 1))
    scaled = to.make("Mul", to.node.input[0], to.number(to.given.get("scale", 1.0)))
    return to.make("Add", scaled, to.number(bias))


def _affine(to: _Speller) -> str:
    scaled = to.make("Mul", to.node.input[0], to.number(to.given.get("alpha", 1.0)))
    return to.make("Add", scaled, to.number(to.given.get("beta", 0.0)))


def _scale(to: _Speller) -> str:
    return to.make("Mul", to.node.input[0], to.number(to.given.get("scale", 1.0)))


def _crop(to: _Speller) -> str:
    """Cut off a border (left, top, right, bottom), or take a part of a given size."""
    left, top, right, bottom = to.given["border"]
    starts, ends = [top, left], [-bottom or _END, -right or _END]
    if to.given.get("scale"):
        ends = [start + size for start, size in zip(starts, to.given["scale"], strict=True)]
    return to.make("Slice", to.node.input[0], starts=starts, ends=ends, axes=[2, 3])


def _scaled_tanh(to: _Speller) -> str:
    inner = to.make("Mul", to.node.input[0], to.number(to.given.get("beta", 1.0)))
    return to.make("Mul", to.make("Tanh", inner), to.number(to.given.get("alpha", 1.0)))


def _parametric_softplus(to: _Speller) -> str:
    inner = to.make("Mul", to.node.input[0], to.number(to.given.get("beta", 1.0)))
    return to.make("Mul", to.make("Softplus", inner), to.number(to.given.get("alpha", 1.0)))


_EXPERIMENTAL: dict[str, Callable[[_Speller], str | None]] = {
    "ImageScaler": _image_scaler,
    "Affine": _affine,
    "Scale": _scale,
    "Crop": _crop,
    "ScaledTanh": _scaled_tanh,
    "ParametricSoftplus": _parametric_softplus,
}
"""Of ONNX's domain up to opset 9, where ONNX Runtime knows them."""
_SPELLED: dict[str, Callable[[_Speller], str | None]] = {
    "Gelu": lambda to: _gelu(to, to.node.input[0]),
    "BiasGelu": lambda to: _gelu(to, _biased(to)),
    "FastGelu": lambda to: _fast_gelu(to, _biased(to)),
    "QuickGelu": _quick_gelu,
    "FusedConv": _fused_conv,
}


def _speller_of(node: NodeProto) -> Callable[[_Speller], str | None] | None:
    if node.domain == _DOMAIN:
        return _SPELLED.get(node.op_type)
    return _EXPERIMENTAL.get(node.op_type) if node.domain in DOMAINS else None


def _is_half(model: ModelProto) -> bool:
    """Tell whether a model computes in float16."""
    from onnx import TensorProto

    return any(one.data_type == TensorProto.FLOAT16 for one in model.graph.initializer)


def spelled_out(model: ModelProto) -> ModelProto:
    """Replace operators that are not ONNX's own in the main graph by those that they stand for.

    Args:
        model: The model; it is not changed.

    Returns:
        A new model; the given one where nothing is to be replaced, or where it computes in float16
        by an opset that cannot say so of a number.
    """
    if not any(map(_speller_of, model.graph.node)):
        return model
    typed = _is_half(model)
    if typed and OnnxGraph(model).opset < _CAST_LIKE:
        return model
    model = copied(model)
    taken = set(all_names(model.graph))
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        spell = _speller_of(node)
        to = _Speller(node, taken, typed=typed)
        if spell is None or spell(to) is None:
            nodes.append(node)
            continue
        to.nodes[-1].output[0] = node.output[0]
        nodes += to.nodes
        model.graph.initializer.extend(to.weights)
    assign(model.graph.node, nodes)
    return model
