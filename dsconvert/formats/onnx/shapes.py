"""Shapes of an ONNX graph's values: declared, and found by ONNX's shape inference."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dsconvert.base.errors import require
from dsconvert.base.predictor import Shape

from .checking import light_copy

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto


def inferred(
    model: ModelProto, folder: Path | None, inputs: Sequence[Shape] | None = None
) -> dict[str, tuple[Shape, int]]:
    """Find the shape and ONNX's element type of each value that has a known number of axes.

    Args:
        model: The model; its large weights are not read.
        folder: Where its external data are.
        inputs: The shapes of its inputs, in their order; None for those that they declare.

    Returns:
        By the value's name; a size is None where it is free.

    Raises:
        Exception: Whatever onnx raises for a model that it cannot infer.
    """
    light = inferred_model(model, folder, inputs)
    found: dict[str, tuple[Shape, int]] = {}
    for value in (*light.graph.value_info, *light.graph.input, *light.graph.output):
        declared = shape_of(value)
        if declared is not None:
            found[value.name] = declared, value.type.tensor_type.elem_type
    for tensor in model.graph.initializer:
        found[tensor.name] = tuple(tensor.dims), tensor.data_type
    return found


def inferred_model(
    model: ModelProto, folder: Path | None, inputs: Sequence[Shape] | None = None
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
    return onnx.shape_inference.infer_shapes(light, data_prop=True)


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
