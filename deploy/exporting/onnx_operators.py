"""What tf2onnx lacks: operations that ONNX can spell out, and settings that give the right sizes.

tf2onnx's handlers get the graph and the node; they remove the node and make others in its place.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

import numpy as np

_MOST = 4096
"""Sizes of images, of which scales are quotients."""


def _erfc(ctx: Any, node: Any, *_: Any) -> None:
    """1 − erf(x), which the exact GELU computes."""
    dtype, shapes, name = _removed(ctx, node)
    erf = ctx.make_node("Erf", node.input, name=f"{name}/erf", shapes=shapes, dtypes=[dtype])
    _last(ctx, node, "Sub", [_one(ctx, name, dtype), erf.output[0]], dtype, shapes)


def _expm1(ctx: Any, node: Any, *_: Any) -> None:
    """exp(x) − 1."""
    dtype, shapes, name = _removed(ctx, node)
    exp = ctx.make_node("Exp", node.input, name=f"{name}/exp", shapes=shapes, dtypes=[dtype])
    _last(ctx, node, "Sub", [exp.output[0], _one(ctx, name, dtype)], dtype, shapes)


def _log1p(ctx: Any, node: Any, *_: Any) -> None:
    """log(1 + x)."""
    dtype, shapes, name = _removed(ctx, node)
    inputs = [*node.input, _one(ctx, name, dtype)]
    more = ctx.make_node("Add", inputs, name=f"{name}/add", shapes=shapes, dtypes=[dtype])
    _last(ctx, node, "Log", [more.output[0]], dtype, shapes)


def _removed(ctx: Any, node: Any) -> tuple[Any, Any, str]:
    dtype, shapes = ctx.get_dtype(node.output[0]), node.output_shapes
    ctx.remove_node(node.name)
    return dtype, shapes, node.name


def _one(ctx: Any, name: str, dtype: Any) -> str:
    from tf2onnx.utils import map_onnx_to_numpy_type

    one = np.array(1, map_onnx_to_numpy_type(dtype))
    return str(ctx.make_const(f"{name}/one", one).output[0])


def _last(ctx: Any, node: Any, kind: str, inputs: list[str], dtype: Any, shapes: Any) -> None:
    ctx.make_node(kind, inputs, name=node.name, outputs=node.output, shapes=shapes, dtypes=[dtype])


HANDLERS: dict[str, tuple[Any, list[Any]]] = {
    "Erfc": (_erfc, []),
    "Expm1": (_expm1, []),
    "Log1p": (_log1p, []),
}
"""For ``tf2onnx.convert``, by operation."""


@contextmanager
def kept_reshapes() -> Iterator[None]:
    """Let tf2onnx keep a Reshape whose result another one takes sizes of, inside the context.

    A size of 0 is that of what is reshaped. tf2onnx leaves the first of two out whatever sizes the
    second has: the (n, T, 1) of a dense layer, made of (n·T, 1), became (n·T, 1, 1).
    """
    optimizer: Any = importlib.import_module("tf2onnx.optimizer.back_to_back_optimizer")
    key = ("Reshape",)
    given = optimizer._func_map[key]

    def leave_out(graph: Any, node: Any, readers: Any) -> Any:
        shapes = [reader.inputs[1] for reader in readers if reader.type == "Reshape"]
        takes = any(one.is_const() and 0 in one.get_tensor_value() for one in shapes)
        return [] if takes else given(graph, node, readers)

    optimizer._func_map[key] = leave_out
    try:
        yield
    finally:
        optimizer._func_map[key] = given


def round_scales_up(model: Any) -> None:
    """Let each Resize give the size that was asked for.

    ONNX cuts ``size · scale`` to a whole number: 12 · 1.6666666 is 19. A scale that was rounded
    down from a quotient of sizes is replaced by the next float above.

    Args:
        model: The `onnx.ModelProto`, which is changed.
    """
    from onnx import numpy_helper

    wanted = {node.input[2] for node in model.graph.node if node.op_type == "Resize"}
    for tensor in model.graph.initializer:
        if tensor.name in wanted:
            scales = numpy_helper.to_array(tensor)
            up = np.array([_rounded_up(scale) for scale in scales], scales.dtype)
            tensor.CopyFrom(numpy_helper.from_array(up, tensor.name))


def pad_outputs(model: Any) -> None:
    """Let each ConvTranspose give the rows and columns that its kernel leaves out.

    tf2onnx writes them as negative pads, half of them in front. TensorFlow has them all at the end,
    as ``output_padding`` has.

    Args:
        model: The `onnx.ModelProto`, which is changed.
    """
    from onnx import helper

    for node in model.graph.node:
        pads = {a.name: a for a in node.attribute}.get("pads")
        if node.op_type != "ConvTranspose" or pads is None or min(pads.ints) >= 0:
            continue
        count = len(pads.ints) // 2
        both = [(pads.ints[i], pads.ints[i + count]) for i in range(count)]
        kept = [pair if sum(pair) >= 0 else (0, 0) for pair in both]
        missing = [max(0, -sum(pair)) for pair in both]
        pads.ints[:] = [one for one, _ in kept] + [other for _, other in kept]
        node.attribute.append(helper.make_attribute("output_padding", missing))


def _rounded_up(scale: np.float32) -> np.float32:
    exact = Fraction(float(scale)).limit_denominator(_MOST)
    if float(scale) >= exact or np.float32(exact) != scale:
        return scale
    return np.float32(np.nextafter(scale, np.float32(np.inf)))
