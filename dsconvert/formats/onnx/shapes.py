"""Shapes of an ONNX graph's values: declared, and found by ONNX's shape inference."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from dsconvert.base.errors import require
from dsconvert.base.predictor import Shape

from .checking import light_copy
from .tensors import DOMAINS

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, ValueInfoProto

_FOLLOWED = 17
"""The opset whose operators inference follows computed sizes through: Shape, Gather, Concat."""
_AS_IDENTITY = ("ImageScaler", "Affine", "Scale", "ScaledTanh", "ParametricSoftplus")
"""Experimental operators of before opset 10, which inference does not know; shapes go through."""
_BEYOND = 1 << 30


def inferred(
    model: ModelProto,
    folder: Path | None,
    inputs: Sequence[Shape] | None = None,
    *,
    computed: bool = False,
) -> dict[str, tuple[Shape, int]]:
    """Find the shape and ONNX's element type of each value that has a known number of axes.

    Args:
        model: The model; its large weights are not read.
        folder: Where its external data are.
        inputs: The shapes of its inputs, in their order; None for those that they declare.
        computed: Follow the sizes that a graph of an old opset computes, as in a newer one.

    Returns:
        By the value's name; a size is None where it is free.

    Raises:
        Exception: Whatever onnx raises for a model that it cannot infer.
    """
    light = inferred_model(model, folder, inputs, computed=computed)
    found: dict[str, tuple[Shape, int]] = {}
    for value in (*light.graph.value_info, *light.graph.input, *light.graph.output):
        declared = shape_of(value)
        if declared is not None:
            found[value.name] = declared, value.type.tensor_type.elem_type
    for tensor in model.graph.initializer:
        found[tensor.name] = tuple(tensor.dims), tensor.data_type
    return found


def inferred_model(
    model: ModelProto,
    folder: Path | None,
    inputs: Sequence[Shape] | None = None,
    *,
    computed: bool = False,
) -> ModelProto:
    """Return the graph without its weights, as shape inference leaves it; see `inferred`."""
    onnx = require("onnx", "onnx", "to read .onnx files")
    light = light_copy(model, folder)
    held = {tensor.name for tensor in model.graph.initializer}
    if inputs is not None:
        fed = [value for value in light.graph.input if value.name not in held]
        for value, shape in zip(fed, inputs, strict=True):
            sizes = value.type.tensor_type.shape.dim
            for dim, size in zip(sizes, shape, strict=True):
                dim.dim_value = size
        for value in light.graph.output:  # an output that says "n" would say so still
            value.type.tensor_type.ClearField("shape")
        del light.graph.value_info[:]
    for node in light.graph.node:
        _make_known(node)
    if computed:
        with suppress(Exception):  # whatever onnx raises for what it cannot convert
            light = onnx.version_converter.convert_version(light, _FOLLOWED)
    return onnx.shape_inference.infer_shapes(light, data_prop=True)


def _make_known(node: NodeProto) -> None:
    """Put an operator that inference knows in the place of one whose results have that shape."""
    from onnx import helper

    if node.domain not in DOMAINS:
        return
    given = {one.name: list(one.ints) for one in node.attribute}
    if node.op_type in _AS_IDENTITY:
        node.op_type = "Identity"
        del node.input[1:], node.attribute[:]
    elif node.op_type == "Crop" and len(given.get("border", ())) == 4:
        left, top, right, bottom = given["border"]
        ends = [-bottom or _BEYOND, -right or _BEYOND]
        if given.get("scale"):
            ends = [start + size for start, size in zip((top, left), given["scale"], strict=True)]
        places = {"starts": [top, left], "ends": ends, "axes": [2, 3]}
        node.CopyFrom(helper.make_node("Slice", node.input[:1], node.output, node.name, **places))


def symbolic_shape(value: ValueInfoProto) -> tuple[int | str | None, ...] | None:
    """The shape that a value declares, a free size by its symbol if it has one; None for none."""
    if not value.type.HasField("tensor_type") or not value.type.tensor_type.HasField("shape"):
        return None
    return tuple(
        size.dim_value if size.HasField("dim_value") else size.dim_param or None
        for size in value.type.tensor_type.shape.dim
    )


def shape_of(value: ValueInfoProto) -> Shape | None:
    """Give the shape that a value declares, None where a size is free; None if it declares none."""
    sizes = symbolic_shape(value)
    if sizes is None:
        return None
    return tuple(size if isinstance(size, int) and size > 0 else None for size in sizes)
