"""Operators that ONNX Runtime knows and ONNX does not, spelled out in ONNX's own.

They are those of its own domain that its optimiser writes, and ONNX's experimental ones of before
opset 7, which ONNX dropped. The quantizer does not know the types of their results, onnx cannot
convert them to another opset, and the import does not know them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from dsconvert.base.predictor import Array

from .graph import OnnxGraph
from .half import HALF
from .node_writer import NodeWriter, rewritten
from .tensors import DOMAINS

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

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


class _Speller(NodeWriter):
    """Writes nodes in place of one, the last of which gives its result.

    Args:
        node: The one.
        taken: The names in the graph.
        opset: Of the graph.
        half: Whether the graph computes in float16; numbers get the type of what they are combined
            with then.
    """

    def __init__(self, node: NodeProto, taken: set[str], *, opset: int, half: bool) -> None:
        super().__init__(node, taken)
        self._opset, self._half = opset, half

    def number(self, value: float | Array) -> str:
        """Return the name of a constant of the values' type."""
        if not self._half:
            return self.constant(value, np.float32)
        if self._opset < _CAST_LIKE:
            return self.constant(value, np.float16)
        return self.make("CastLike", self.constant(value, np.float32), self.node.input[0])


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


def spelled_out(model: ModelProto) -> ModelProto:
    """Replace operators that are not ONNX's own in the main graph by those that they stand for.

    Args:
        model: The model; it is not changed.

    Returns:
        A new model; the given one where nothing is to be replaced.
    """
    half = any(one.data_type in HALF for one in model.graph.initializer)
    opset = OnnxGraph(model).opset
    return rewritten(
        model, _speller_of, lambda node, taken: _Speller(node, taken, opset=opset, half=half)
    )
