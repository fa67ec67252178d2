"""What ONNX Runtime takes and ONNX's checker does not: mended in a model that was just read.

None of this changes what a model computes.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dsconvert.base.errors import require

from .checking import light_copy
from .contrib import define_operators, part_fused
from .declared import declare_channels, declare_opset, free_sizes
from .functions import state_functions
from .messages import assign
from .shapes import shape_of
from .sorting import sort_nodes
from .types import runtime_types

if TYPE_CHECKING:
    from onnx import ModelProto


def mend_form(model: ModelProto, folder: Path | None) -> tuple[str, ...]:
    """Sort the nodes, name the graph, and declare the opset and the shapes that the nodes give.

    Args:
        model: The model, which is changed.
        folder: Where its external data are.

    Returns:
        What was done, one sentence each.
    """
    told = []
    if sort_nodes(model):
        told.append("its nodes were not in the order that ONNX requires; they are sorted")
    if not model.graph.name:
        model.graph.name = "graph"
        told.append("its graph had no name")
    if declare_opset(model):
        told.append("its opset was declared twice, or under another name than the usual one")
    state_functions(model)
    if define_operators(model):
        told.append(
            "norms that ONNX does not define in its opset are spelled out, as ONNX Runtime has them"
        )
    if part_fused(model):
        told.append("convolutions that ONNX Runtime fused with their activations stand apart")
    if free_sizes(model):
        told.append("sizes that it declared as negative, or a batch of 0, are free")
    channels = declare_channels(model)
    if channels:
        names = ", ".join(map(repr, channels))
        told.append(f"the channels of {names}, which it left open, are those of its convolutions")
    if _declare_types(model, folder):
        told.append("outputs whose type it did not declare have that of ONNX Runtime")
    if _declare_shapes(model, folder):
        told.append("shapes that it declared wrongly, or not at all, are those that its nodes give")
    return tuple(told)


def _declare_types(model: ModelProto, folder: Path | None) -> bool:
    """Declare the element types and sizes of outputs that have none, as ONNX Runtime finds them."""
    onnx = require("onnx", "onnx", "to read .onnx files")
    untyped = {
        value.name: value
        for value in model.graph.output
        if value.type.WhichOneof("value") in (None, "tensor_type")
        and value.type.tensor_type.elem_type == onnx.TensorProto.UNDEFINED
    }
    if not untyped:
        return False
    for name, declared in runtime_types(model, folder, untyped).items():
        untyped[name].CopyFrom(declared)
    return True


def _declare_shapes(model: ModelProto, folder: Path | None) -> bool:
    """Correct declared shapes of outputs; drop those of inner values if any is wrong."""
    onnx = require("onnx", "onnx", "to read .onnx files")
    graph = model.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    for value in graph.output:  # what reads it would find it without a shape
        if value.name in stored and shape_of(value) is None:
            tensor = stored[value.name]
            known = onnx.helper.make_tensor_value_info(value.name, tensor.data_type, tensor.dims)
            value.CopyFrom(known)
    missing = any(shape_of(value) is None for value in graph.output)
    light = light_copy(model, folder)
    try:
        onnx.shape_inference.infer_shapes(light, check_type=True, strict_mode=True, data_prop=True)
    except Exception:  # InferenceError, or what the parser raises
        pass
    else:
        if not missing:
            return False
    del light.graph.value_info[:]
    for value in light.graph.output:
        if value.name not in stored:
            value.type.tensor_type.ClearField("shape")
    try:
        light = onnx.shape_inference.infer_shapes(light, strict_mode=True, data_prop=True)
    except Exception:  # the model itself is wrong, not what it declares
        return False
    found = {value.name: value for value in (*light.graph.output, *light.graph.input)}
    for value in graph.output:
        known = found[value.name]
        if value.name in stored:
            tensor = stored[value.name]
            known = onnx.helper.make_tensor_value_info(value.name, tensor.data_type, tensor.dims)
        if shape_of(known) is not None and known.type.HasField("tensor_type"):
            value.type.CopyFrom(known.type)
    assign(graph.value_info, [])
    return True
