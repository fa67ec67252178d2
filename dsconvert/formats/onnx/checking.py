"""Checking an ONNX model without its weights, so that a large one costs no memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dsconvert.base.errors import require

from .messages import assign, copied, copy_without_graph
from .nodes import nodes_of
from .session import sentence, session
from .tensors import (
    FLOATS,
    embedded,
    external_place,
    is_external,
    size_in_bytes,
    stored_tensors,
    tensors_of,
)

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto

_SMALL = 4096
"""Bytes up to which a tensor may be a shape, a scale or another value that decides the graph."""
_GROUPED = ("Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "DeformConv")


class Refused(Exception):
    """A model that the checker or ONNX Runtime does not take; the message is their sentence."""


def light_copy(model: ModelProto, folder: Path | None) -> ModelProto:
    """Return the model with its large weights as inputs instead of initialisers.

    It has the same nodes, types and shapes, so what checks and shape inference say of it holds
    for the model, whatever its size.
    """
    from onnx import helper

    copy = copy_without_graph(model)
    copy.ir_version = max(model.ir_version, 4)  # before, initialisers had to be inputs too
    graph = model.graph
    copy.graph.name = graph.name
    for part in ("node", "output", "value_info", "sparse_initializer", "quantization_annotation"):
        getattr(copy.graph, part).extend(getattr(graph, part))
    held = {tensor.name for tensor in graph.initializer}
    copy.graph.input.extend(value for value in graph.input if value.name not in held)
    for tensor in graph.initializer:
        if is_weight(tensor):
            copy.graph.input.append(
                helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            )
        else:
            copy.graph.initializer.append(tensor)
    # The checker looks for external data in the folder that Python was started in.
    for tensor, _ in tensors_of(copy):
        if is_external(tensor):
            tensor.CopyFrom(embedded(tensor, folder))
    return copy


def is_weight(tensor: TensorProto) -> bool:
    """Tell whether a tensor is too large to be a shape or another value that decides the graph."""
    return tensor.data_type in FLOATS and size_in_bytes(tensor) > _SMALL


def _check_length(tensor: TensorProto) -> None:
    if is_external(tensor):
        return
    held = len(tensor.float_data) * 4 or len(tensor.double_data) * 8 or len(tensor.int32_data) * 2
    held = len(tensor.raw_data) if tensor.HasField("raw_data") else held
    if held != size_in_bytes(tensor):
        wanted = "×".join(map(str, tensor.dims))
        raise Refused(f"tensor {tensor.name!r} of {wanted} values holds {held} bytes")


def _check_group(node: NodeProto) -> None:
    """Refuse what neither the checker nor ONNX Runtime looks at before the first image."""
    for attribute in node.attribute:
        if attribute.name == "group" and attribute.i < 1 and node.op_type in _GROUPED:
            name = node.name or node.op_type
            raise Refused(f"node {name!r} has {attribute.i} groups; at least one is needed")


def _check_bias(node: NodeProto, shapes: Mapping[str, Sequence[int]]) -> None:
    """Refuse a bias that is not one value per output channel, which nobody else looks at either."""
    if node.op_type not in ("Conv", "ConvTranspose") or len(node.input) < 3:
        return
    kernel, bias = shapes.get(node.input[1]), shapes.get(node.input[2])
    if kernel is None or bias is None or len(kernel) < 3:
        return
    groups = next((one.i for one in node.attribute if one.name == "group"), 1)
    channels = kernel[0] if node.op_type == "Conv" else kernel[1] * groups
    if tuple(bias) != (channels,):
        name = node.name or node.op_type
        told = "×".join(map(str, bias)) or "a single value"
        raise Refused(f"node {name!r} gives {channels} channels, and its bias is {told}")


def _of_known_shapes(model: ModelProto) -> ModelProto:
    """Return a model without the outputs that say no shape, which the checker would ask for.

    What comes out of a Loop or a list has none, and ONNX Runtime does not need it.
    """
    known = [value for value in model.graph.output if _says_shape(value)]
    if len(known) == len(model.graph.output):
        return model
    model = copied(model)
    assign(model.graph.output, known)
    return model


def _says_shape(value: ValueInfoProto) -> bool:
    kind = value.type.WhichOneof("value")
    if kind == "sequence_type":
        return bool(value.type.sequence_type.elem_type.tensor_type.HasField("shape"))
    return kind in (None, "tensor_type") and bool(value.type.tensor_type.HasField("shape"))


def check_runs(model: ModelProto, folder: Path | None) -> None:
    """See that a model is valid ONNX and that ONNX Runtime has a kernel for every node.

    Raises:
        Refused: With the first sentence of what they say.
        InputError: If external data are not where the model says.
    """
    onnx = require("onnx", "onnx", "to read .onnx files")
    for tensor, _ in tensors_of(model):
        if is_external(tensor):
            external_place(tensor, folder)
    for tensor in filter(is_weight, model.graph.initializer):  # which the checker will not see
        _check_length(tensor)
    shapes = {name: tensor.dims for name, tensor in stored_tensors(model).items()}
    for node in nodes_of(model.graph):
        _check_group(node)
        _check_bias(node, shapes)
    light = light_copy(model, folder)
    try:
        onnx.checker.check_model(_of_known_shapes(light), full_check=True)
    except Exception as error:  # ValidationError, InferenceError, or what the parser raises
        raise Refused(f"onnx.checker: {sentence(error)}") from error
    try:
        session(light, folder, optimization="none")
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        raise Refused(f"ONNX Runtime: {sentence(error)}") from error
