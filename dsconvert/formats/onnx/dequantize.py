"""Quantized ONNX graphs as float ones: QDQ, QOperator, dynamic, and QONNX's Quant.

Every value that was stored in whole numbers becomes the real value that it stood for. What a range
cuts off on purpose stays: a tensor without negative values is a ReLU, which quantizers take away,
and a range of fewer than 8 bits was trained with its ends.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dsconvert.base.errors import InputError
from dsconvert.base.predictor import Array

from .constants import constant_of
from .graph import OnnxGraph, all_names, attributes, fresh_name, reads_of
from .messages import assign, copied
from .save import without_unused_domains

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

_QONNX = ("onnx.brevitas", "qonnx.custom_op.general", "finn.custom_op.general")
_PLAIN = {
    "QLinearSigmoid": "Sigmoid",
    "QLinearLeakyRelu": "LeakyRelu",
    "QLinearSoftmax": "Softmax",
    "QLinearAveragePool": "AveragePool",
    "QLinearGlobalAveragePool": "GlobalAveragePool",
}
"""Operators of one operand, its scale and zero point, and those of the result."""
_NOT_CARRIED = ("channels_last", "opset")
_FULL_BITS = 8


def is_quantized(model: ModelProto) -> bool:
    """Tell whether a graph holds quantized operators."""
    return any(map(is_quantized_operator, model.graph.node))


def is_quantized_operator(node: NodeProto) -> bool:
    """Tell whether a node computes in whole numbers, or goes to them or from them."""
    return (
        node.op_type.startswith(("QLinear", "QGemm", "Quantize", "Dequantize", "DynamicQuantize"))
        or node.op_type in ("ConvInteger", "MatMulInteger", "MatMulIntegerToFloat")
        or node.domain in _QONNX
    )


def dequantized(model: ModelProto, folder: Path | None) -> ModelProto:
    """Return a quantized model in float32.

    Args:
        model: The model; it is not changed.
        folder: Where its external data are.

    Raises:
        InputError: If it holds a quantized operator that has no float form here.
    """
    rewriting = _Rewriting(model, folder)
    for node in rewriting.graph.nodes:
        rewriting.add(node)
    return rewriting.done()


def _limits(kind: np.dtype[Any], name: str) -> tuple[float, float, int]:
    """Return the least and the greatest number of a type of few bits, and how many bits.

    Raises:
        InputError: If it is no such type.
    """
    import ml_dtypes

    for limits, most in ((np.iinfo, 32), (ml_dtypes.iinfo, 8), (ml_dtypes.finfo, 8)):
        try:
            found = limits(kind)
        except (ValueError, TypeError):
            continue
        if found.bits <= most:
            return float(found.min), float(found.max), int(found.bits)
    raise InputError(
        f"the zero point behind {name!r} is of {kind}, and no number of few bits.",
        "Export the file again from where it was made.",
        code="damaged-file",
    )


class _Rewriting:
    def __init__(self, model: ModelProto, folder: Path | None) -> None:
        self.graph = OnnxGraph(model, folder)
        self.nodes: list[NodeProto] = []
        self.floats: dict[str, Array] = {}
        self.same: dict[str, str] = {}  # values that another one stands for
        self.taken = set(all_names(model.graph))

    def add(self, node: NodeProto) -> None:
        """Put the float form of a node into the new graph."""
        if node.domain in _QONNX:
            return self._qonnx(node)
        handler = _HANDLERS.get(node.op_type)
        if handler is not None:
            return handler(self, node)
        if node.op_type in _PLAIN:
            scale, zero = node.input[3:5]
            made = self._node(_PLAIN[node.op_type], [self.read(node.input[0])], node)
            return self._in_range(made, node.output[0], scale, zero)
        if is_quantized_operator(node) or node.op_type == "QAttention":
            raise InputError(
                f"{node.name or node.output[0]} ({node.op_type}) has no float form here.",
                "Give the float model that the file was made from.",
                code="operator-not-dequantized",
            )
        kept = copied(node)
        kept.input[:] = [self.read(name) for name in node.input]
        self.nodes.append(kept)
        return None

    def read(self, name: str) -> str:
        """Return the float value in a value's place."""
        while name in self.same:
            name = self.same[name]
        return name

    def value(self, name: str) -> Array:
        """Return a constant.

        Raises:
            InputError: If the value depends on the model's inputs.
        """
        found = self.floats.get(name)
        found = constant_of(self.graph, name) if found is None else found
        if found is None:
            raise InputError(
                f"{name!r} is a scale or weight that is computed from the data: it has no float "
                "form.",
                "Give the float model that the file was made from.",
                code="operator-not-dequantized",
            )
        return found

    def done(self) -> ModelProto:
        """Return the new model."""
        from onnx import TensorProto, helper, numpy_helper

        model = copied(self.graph.model)
        for output in model.graph.output:
            standing = self.read(output.name)
            if standing != output.name:
                self.nodes.append(helper.make_node("Identity", [standing], [output.name]))
            kind = output.type.tensor_type.elem_type
            if kind in (TensorProto.INT8, TensorProto.UINT8):
                output.type.tensor_type.elem_type = TensorProto.FLOAT
        assign(model.graph.node, self.nodes)
        read = {name for node in self.nodes for name in reads_of(node)} | set(self.graph.outputs)
        kept = [one for one in model.graph.initializer if one.name in read - self.floats.keys()]
        assign(model.graph.initializer, kept)
        model.graph.initializer.extend(
            numpy_helper.from_array(np.asarray(value), name)
            for name, value in self.floats.items()
            if name in read
        )
        held = {one.name for one in self.graph.model.graph.initializer}
        stay = [one for one in model.graph.input if one.name not in held or one.name in read]
        assign(model.graph.input, stay)
        del model.graph.value_info[:]
        del model.graph.quantization_annotation[:]
        without_unused_domains(model, model)
        return model

    # Parts of the forms.

    def _node(self, kind: str, inputs: list[str], of: NodeProto) -> str:
        """Add an operator of ONNX with a node's attributes; its output's name."""
        from onnx import helper

        output = fresh_name(f"{of.output[0]}_float", self.taken)
        made = helper.make_node(kind, inputs, [output], of.name)
        made.attribute.extend(one for one in of.attribute if one.name not in _NOT_CARRIED)
        self.nodes.append(made)
        return output

    def _stored(self, wanted: str, value: Array) -> str:
        name = fresh_name(wanted, self.taken)
        self.floats[name] = np.asarray(value, np.float32)
        return name

    def _real(self, name: str, scale: str, zero: str, axis: int | None = None) -> str:
        """Return an operand as a real value: a constant is computed."""
        stored = constant_of(self.graph, name)
        if stored is None:
            return self.read(name)
        s, z = self.value(scale), self._zero(zero)
        if axis is not None and s.size > 1:
            shape = [1] * stored.ndim
            shape[axis] = -1
            s, z = s.reshape(shape), z.reshape(shape) if z.size > 1 else z
        real = (stored.astype(np.float64) - z.astype(np.float64)) * s
        return self._stored(f"{name}_float", real)

    def _zero(self, name: str) -> Array:
        return self.value(name) if name else np.zeros((), np.uint8)

    def _in_range(self, name: str, output: str, scale: str, zero: str) -> None:
        """Let a value stand for a quantized one, cut off where its range was meant to."""
        z = self._zero(zero)
        least, most, bits = _limits(z.dtype, output)
        low, high = ((end - z.astype(np.float64)) * self.value(scale) for end in (least, most))
        self._cut(name, output, low, high, bits)

    def _cut(self, name: str, output: str, low: Array, high: Array, bits: int) -> None:
        from onnx import helper

        if bits >= _FULL_BITS and np.any(low):
            self.same[output] = name
        elif bits >= _FULL_BITS:
            self.nodes.append(helper.make_node("Relu", [name], [output], f"{output}_relu"))
        else:
            least = self._stored(f"{output}_low", low)
            most = self._stored(f"{output}_high", high)
            middle = fresh_name(f"{output}_above", self.taken)
            self.nodes.append(helper.make_node("Max", [name, least], [middle]))
            self.nodes.append(helper.make_node("Min", [middle, most], [output]))

    # The operators.

    def _quantize(self, node: NodeProto) -> None:
        if constant_of(self.graph, node.output[0]) is not None:
            self.nodes.append(copied(node))
            return
        zero = node.input[2] if len(node.input) > 2 else ""
        self._in_range(self.read(node.input[0]), node.output[0], node.input[1], zero)

    def _dequantize(self, node: NodeProto) -> None:
        from onnx import helper

        source, output = node.input[0], node.output[0]
        known = constant_of(self.graph, output)
        if known is not None:
            self.floats[output] = np.asarray(known, np.float32)
            return
        if source not in {one.name for one in self.graph.inputs}:
            self.same[output] = self.read(source)
            return
        # The model takes whole numbers: they are made real here, as before.
        zero = node.input[2] if len(node.input) > 2 else ""
        real, moved = (fresh_name(f"{output}_{part}", self.taken) for part in ("real", "moved"))
        offset = self._stored(f"{output}_offset", self._zero(zero))
        factor = self._stored(f"{output}_factor", self.value(node.input[1]))
        self.nodes += [
            helper.make_node("Cast", [source], [real], to=1),
            helper.make_node("Sub", [real, offset], [moved]),
            helper.make_node("Mul", [moved, factor], [output]),
        ]

    def _conv(self, node: NodeProto) -> None:
        x, xs, xz, w, ws, wz, ys, yz = node.input[:8]
        operands = [self._real(x, xs, xz), self._real(w, ws, wz, 0)]
        if len(node.input) > 8 and node.input[8]:
            bias = self.value(node.input[8]) * (self.value(xs) * self.value(ws)).reshape(-1)
            operands.append(self._stored(f"{node.input[8]}_float", bias))
        self._in_range(self._node("Conv", operands, node), node.output[0], ys, yz)

    def _matmul(self, node: NodeProto) -> None:
        a, as_, az, b, bs, bz, ys, yz = node.input[:8]
        operands = [self._real(a, as_, az), self._real(b, bs, bz, -1)]
        self._in_range(self._node("MatMul", operands, node), node.output[0], ys, yz)

    def _gemm(self, node: NodeProto) -> None:
        a, as_, az, b, bs, bz = node.input[:6]
        axis = 0 if attributes(node).get("transB", 0) else 1
        operands = [self._real(a, as_, az), self._real(b, bs, bz, axis)]
        if len(node.input) > 6 and node.input[6]:
            bias = self.value(node.input[6]) * (self.value(as_) * self.value(bs)).reshape(-1)
            operands.append(self._stored(f"{node.input[6]}_float", bias))
        made = self._node("Gemm", operands, node)
        if len(node.input) > 8:
            self._in_range(made, node.output[0], node.input[7], node.input[8])
        else:
            self.same[node.output[0]] = made

    def _both(self, kind: str) -> Callable[[NodeProto], None]:
        def add(node: NodeProto) -> None:
            a, as_, az, b, bs, bz, ys, yz = node.input[:8]
            operands = [self._real(a, as_, az), self._real(b, bs, bz)]
            self._in_range(self._node(kind, operands, node), node.output[0], ys, yz)

        return add

    def _concat(self, node: NodeProto) -> None:
        ys, yz, *rest = node.input
        operands = [self._real(*rest[i : i + 3]) for i in range(0, len(rest), 3)]
        self._in_range(self._node("Concat", operands, node), node.output[0], ys, yz)

    def _dynamic(self, node: NodeProto) -> None:
        y, scale, zero = node.output
        self.same[y] = self.read(node.input[0])
        self.floats[scale] = np.ones((), np.float32)
        self.floats[zero] = np.zeros((), np.uint8)

    def _integer(self, node: NodeProto) -> None:
        """ConvInteger and MatMulInteger: what they read is real already, with a scale of 1."""
        x, w, *zeros = node.input
        wz = zeros[1] if len(zeros) > 1 else ""
        weight = self._stored(f"{w}_float", self.value(w).astype(np.float64) - self._aligned(w, wz))
        kind = node.op_type.removesuffix("Integer")
        self.same[node.output[0]] = self._node(kind, [self.read(x), weight], node)

    def _aligned(self, weight: str, zero: str) -> Array:
        z = self._zero(zero).astype(np.float64)
        if z.size > 1 and self.value(weight).ndim == 4:
            return z.reshape(-1, 1, 1, 1)
        return z

    def _to_float(self, node: NodeProto) -> None:
        """MatMulIntegerToFloat: a product with the scales applied."""
        a, b, as_, bs, *rest = node.input
        bz = rest[1] if len(rest) > 1 else ""
        weight = self._real(b, bs, bz, -1)
        scaled = self.floats[weight] * self.value(as_)
        self.floats[weight] = scaled.astype(np.float32)
        made = self._node("MatMul", [self.read(a), weight], node)
        if len(rest) > 2 and rest[2]:
            made = self._node("Add", [made, rest[2]], node)
        self.same[node.output[0]] = made

    def _qonnx(self, node: NodeProto) -> None:
        given, x = attributes(node), node.input[0]
        values = self.floats.get(x)
        values = constant_of(self.graph, x) if values is None else values
        if node.op_type == "Trunc":
            self.same[node.output[0]] = self.read(x)
            return
        if node.op_type == "BipolarQuant" and values is not None:
            signs = np.where(values >= 0, 1.0, -1.0) * self.value(node.input[1])
            self.floats[node.output[0]] = np.asarray(signs, np.float32)
            return
        if node.op_type != "Quant":
            raise InputError(
                f"{node.name or node.output[0]} ({node.domain}.{node.op_type}) has no float form.",
                "Give the float model that the file was made from.",
                code="operator-not-dequantized",
            )
        scale, zero, width = (self.value(name).astype(np.float64) for name in node.input[1:4])
        bits = int(width.max())
        least = -(2.0 ** (bits - 1)) + bool(given.get("narrow")) if given.get("signed", 1) else 0.0
        most = 2.0 ** (bits - 1) - 1 if given.get("signed", 1) else 2.0**bits - 1
        if not given.get("signed", 1) and given.get("narrow"):
            most -= 1
        if values is None:
            ends = ((least - zero) * scale, (most - zero) * scale)
            self._cut(self.read(x), node.output[0], *ends, min(bits, _FULL_BITS))
            return
        steps = _rounded(values / scale + zero, given.get("rounding_mode", "ROUND"))
        real = (np.clip(steps, least, most) - zero) * scale
        self.floats[node.output[0]] = np.asarray(real, np.float32)


def _rounded(values: Array, mode: str) -> Array:
    rules = {"CEIL": np.ceil, "FLOOR": np.floor, "ROUND_TO_ZERO": np.trunc}
    return np.asarray(rules.get(mode.upper(), np.rint)(values))


_HANDLERS: dict[str, Callable[[_Rewriting, Any], None]] = {
    "QuantizeLinear": _Rewriting._quantize,
    "DequantizeLinear": _Rewriting._dequantize,
    "QLinearConv": _Rewriting._conv,
    "QLinearMatMul": _Rewriting._matmul,
    "QGemm": _Rewriting._gemm,
    "QLinearAdd": lambda self, node: self._both("Add")(node),
    "QLinearMul": lambda self, node: self._both("Mul")(node),
    "QLinearConcat": _Rewriting._concat,
    "DynamicQuantizeLinear": _Rewriting._dynamic,
    "ConvInteger": _Rewriting._integer,
    "MatMulInteger": _Rewriting._integer,
    "MatMulIntegerToFloat": _Rewriting._to_float,
}
