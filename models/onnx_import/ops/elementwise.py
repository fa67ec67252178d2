"""Operators that compute each element from those at the same place."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, reduce
from typing import Any

import numpy as np

from dsconvert.base.errors import require

from ..builder import KerasBuilder, refuse
from ..graph import Node
from ..neighbours import gelu_input
from ..registry import op
from ..values import Constant, Tensor

_LAYERS = {
    "Add": "Add",
    "Sum": "Add",
    "Sub": "Subtract",
    "Mul": "Multiply",
    "Max": "Maximum",
    "Min": "Minimum",
    "Mean": "Average",
}
"""The Keras layers for two or more tensors that have the same shape."""
_BINARY = {
    "Add": "add",
    "Sub": "subtract",
    "Mul": "multiply",
    "Equal": "equal",
    "Greater": "greater",
    "GreaterOrEqual": "greater_equal",
    "Less": "less",
    "LessOrEqual": "less_equal",
    "And": "logical_and",
    "Or": "logical_or",
    "Xor": "logical_xor",
    "BitwiseAnd": "bitwise_and",
    "BitwiseOr": "bitwise_or",
    "BitwiseXor": "bitwise_xor",
}
_SEVERAL = {"Sum": "add", "Mean": "add", "Max": "maximum", "Min": "minimum"}
_UNARY = {
    "Abs": "absolute",
    "Neg": "negative",
    "Exp": "exp",
    "Log": "log",
    "Sqrt": "sqrt",
    "Reciprocal": "reciprocal",
    "Floor": "floor",
    "Ceil": "ceil",
    "Round": "round",
    "Sign": "sign",
    "Sin": "sin",
    "Cos": "cos",
    "Not": "logical_not",
    "BitwiseNot": "bitwise_not",
    "IsNaN": "isnan",
}
_LN2 = float(np.log(2))
Draw = Callable[..., Any]
"""`KerasBuilder.apply` for one node."""
_TRIGONOMETRY: dict[str, Callable[[Draw, Any], Any]] = {
    # TFLite has sin, cos, atan2, exp and log only. The first two halve in the exponent: eˣ alone
    # would overflow before they do.
    "Sinh": lambda draw, x: draw("subtract", *_halves(draw, x)),
    "Cosh": lambda draw, x: draw("add", *_halves(draw, x)),
    "Tan": lambda draw, x: draw("divide", draw("sin", x), draw("cos", x)),
    "Asinh": lambda draw, x: draw(
        "multiply",
        draw("sign", x),
        draw("log", draw("add", draw("absolute", x), _root(draw, x, 1))),
    ),
    "Acosh": lambda draw, x: draw("log", draw("add", x, _root(draw, x, -1))),
    "Atanh": lambda draw, x: draw(
        "multiply",
        draw("log", draw("divide", draw("add", x, 1.0), draw("subtract", 1.0, x))),
        0.5,
    ),
    "Atan": lambda draw, x: draw("arctan2", x, draw("ones_like", x)),
    "Asin": lambda draw, x: draw("arctan2", x, _leg(draw, x)),
    "Acos": lambda draw, x: draw("arctan2", _leg(draw, x), x),
}


@op(*_BINARY)
def binary(node: Node, build: KerasBuilder) -> Tensor:
    """Two operands, broadcast; the last product of a GELU is that: TFLite has one, and no erf."""
    if node.op == "Mul" and (name := gelu_input(build.graph, node)) is not None:
        x = build.read(name)
        if isinstance(x, Tensor):
            y = build.apply(node, "gelu", x.keras, approximate=False)
            return build.result(node, y, x.order, rows=x.rows)
    operands, order = build.align(node)
    if node.op in _LAYERS and _alike(operands):
        return build.result(node, build.layer(node, _LAYERS[node.op])(operands), order)
    return build.result(node, build.apply(node, _BINARY[node.op], *operands), order)


@op(*_SEVERAL)
def several(node: Node, build: KerasBuilder) -> Tensor:
    """Any number of operands, broadcast."""
    operands, order = build.align(node)
    if len(operands) == 1:
        return build.result(node, operands[0], order)
    if _alike(operands):
        return build.result(node, build.layer(node, _LAYERS[node.op])(operands), order)

    constants = [x for x in operands if isinstance(x, np.ndarray)]
    tensors = [x for x in operands if not isinstance(x, np.ndarray)]
    function = _SEVERAL[node.op]
    if constants:
        tensors.append(reduce(getattr(np, function), constants))
    combined = tensors[0]
    for tensor in tensors[1:]:
        combined = build.apply(node, function, combined, tensor)
    if node.op == "Mean":
        combined = build.apply(node, "multiply", combined, np.float32(1 / len(operands)))
    return build.result(node, combined, order)


@op("Div")
def divide(node: Node, build: KerasBuilder) -> Tensor:
    """Two operands; whole numbers are rounded towards zero."""
    (a, b), order = build.align(node)
    if _is_float(a):
        return build.result(node, build.apply(node, "divide", a, b), order)
    draw = partial(build.apply, node)
    if np.dtype(_dtype(a)).kind == "u":
        return build.result(node, draw("floor_divide", a, b), order)
    # a = b·q + r with r of a's sign: what is left after that is divisible.
    whole = draw("subtract", a, _remainder(draw, a, b))
    return build.result(node, draw("floor_divide", whole, b), order)


@op("Mod")
def modulo(node: Node, build: KerasBuilder) -> Tensor:
    """Return the remainder: of the divisor's sign, or of the dividend's with ``fmod``."""
    (a, b), order = build.align(node)
    draw = partial(build.apply, node)
    result = _remainder(draw, a, b) if node.get("fmod", 0) else draw("mod", a, b)
    return build.result(node, result, order)


def _remainder(draw: Draw, a: Any, b: Any) -> Any:
    """Return the remainder of a truncated division: it has the sign of the dividend."""
    sizes = [np.abs(x) if isinstance(x, np.ndarray) else draw("absolute", x) for x in (a, b)]
    sign = np.sign(a) if isinstance(a, np.ndarray) else draw("sign", a)
    return draw("multiply", sign, draw("mod", *sizes))


@op("Pow")
def power(node: Node, build: KerasBuilder) -> Tensor:
    """Return the result is of the base's type."""
    (base, exponent), order = build.align(node)
    if isinstance(exponent, np.ndarray) and exponent.ndim == 0 and _is_float(base):
        function = {2.0: "square", 0.5: "sqrt"}.get(float(exponent))
        if function:
            return build.result(node, build.apply(node, function, base), order)
        exponent = exponent.astype(np.float32)
    dtype = _dtype(base)
    if not _is_float(base) and _is_float(exponent):
        base = build.apply(node, "cast", base, "float32")
    elif _is_float(base) and not _is_float(exponent):
        exponent = build.apply(node, "cast", exponent, "float32")
    result = build.apply(node, "power", base, exponent)
    if _dtype(result) != dtype:
        result = build.apply(node, "cast", result, dtype)
    return build.result(node, result, order)


@op(*_UNARY, *_TRIGONOMETRY)
def unary(node: Node, build: KerasBuilder) -> Tensor:
    """Return one operand."""
    x = build.tensor(node, rows=True)
    draw = partial(build.apply, node)
    if node.op in _TRIGONOMETRY:
        result = _TRIGONOMETRY[node.op](draw, x.keras)
    else:
        result = draw(_UNARY[node.op], x.keras)
    return build.result(node, result, x.order, rows=x.rows)


def _halves(draw: Draw, x: Any) -> tuple[Any, Any]:
    """½eˣ and ½e⁻ˣ."""
    up = draw("exp", draw("subtract", x, _LN2))
    return up, draw("exp", draw("subtract", -_LN2, x))


def _leg(draw: Draw, x: Any) -> Any:
    """Return the square root of 1 − x²."""
    return draw("sqrt", draw("subtract", 1.0, draw("square", x)))


def _root(draw: Draw, x: Any, one: float) -> Any:
    """Return the square root of x² ± 1."""
    return draw("sqrt", draw("add", draw("square", x), one))


@op("Erf")
def erf(node: Node, build: KerasBuilder) -> Tensor:
    """The error function. TFLite has it as a part of GELU only: erf z/√2 is 2·gelu(z)/z − 1."""
    x = build.tensor(node, rows=True)
    draw = partial(build.apply, node)
    z = draw("clip", draw("multiply", x.keras, float(np.sqrt(2))), -9.0, 9.0)  # ±1 beyond
    tiny = draw("less", draw("absolute", z), 1e-6)
    safe = draw("where", tiny, 1.0, z)
    ratio = draw("divide", draw("gelu", safe, approximate=False), safe)
    value = draw("subtract", draw("multiply", ratio, 2.0), 1.0)
    near_zero = draw("multiply", x.keras, float(2 / np.sqrt(np.pi)))
    return build.result(node, draw("where", tiny, near_zero, value), x.order, rows=x.rows)


@op("IsInf")
def is_infinite(node: Node, build: KerasBuilder) -> Tensor:
    """Tell whether a value is infinite, of one sign or of both."""
    x = build.tensor(node, rows=True)
    positive, negative = node.get("detect_positive", 1), node.get("detect_negative", 1)
    # TFLite finds no infinity equal to another; what lies beyond the largest number is one.
    largest = float(np.finfo(np.float32).max)
    if positive and negative:
        result = build.apply(node, "greater", build.apply(node, "absolute", x.keras), largest)
    elif positive:
        result = build.apply(node, "greater", x.keras, largest)
    else:
        result = build.apply(node, "less", x.keras, -largest)
        if not negative:
            result = build.apply(node, "logical_and", result, np.False_)
    return build.result(node, result, x.order, rows=x.rows)


@op("Where")
def where(node: Node, build: KerasBuilder) -> Tensor:
    """Return a choice between two operands, broadcast."""
    operands, order = build.align(node)
    return build.result(node, build.apply(node, "where", *operands), order)


@op("Cast")
def cast(node: Node, build: KerasBuilder) -> Tensor:
    """Another type; all floating types are float32 here."""
    onnx = require("onnx", "onnx", "to import .onnx files")
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(node.attributes["to"]))
    return _converted(node, build, dtype)


@op("CastLike")
def cast_like(node: Node, build: KerasBuilder) -> Tensor:
    """Return the type of the second operand."""
    like = build.value(node, 1)
    dtype = like.value.dtype if isinstance(like, Constant) else np.dtype(str(like.keras.dtype))
    return _converted(node, build, dtype)


def _converted(node: Node, build: KerasBuilder, dtype: np.dtype[Any]) -> Tensor:
    x = build.tensor(node, rows=True)
    if dtype.kind not in "fiub":
        raise refuse(node, f"Keras has no {dtype.name}")
    name = "float32" if dtype.kind == "f" else dtype.name
    if _dtype(x.keras) == name:
        return build.result(node, x.keras, x.order, rows=x.rows)
    y = x.keras
    if dtype.kind in "iu" and dtype.itemsize < np.dtype(np.int32).itemsize and _is_float(y):
        # What is too large for it wraps around in ONNX Runtime, and is anything in TensorFlow.
        y = build.apply(node, "cast", y, "int32")
    return build.result(node, build.apply(node, "cast", y, name), x.order, rows=x.rows)


def _alike(operands: list[Any]) -> bool:
    """Tell whether all are float tensors of one shape: what the merging layers take."""
    first = operands[0]
    return all(
        hasattr(x, "_keras_history") and tuple(x.shape) == tuple(first.shape) and _is_float(x)
        for x in operands
    )


def _dtype(x: Any) -> str:
    return str(x.dtype)


def _is_float(x: Any) -> bool:
    return "float" in _dtype(x)
