"""What a model says of its opset and its inputs in a way that not all readers take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .graph import OnnxGraph, attributes, is_op
from .messages import assign
from .shapes import shape_of
from .tensors import DOMAINS

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto

_POINTWISE = ("Identity", "Cast", "Add", "Sub", "Mul", "Div", "Clip")
"""Operators that keep the axes of what the inputs are, with constants beside it."""


def declare_opset(model: ModelProto) -> bool:
    """Name ONNX's own operators once, and as its tools do: ``ai.onnx`` is another name of "".

    Returns:
        Whether anything changed.
    """
    own = [one for one in model.opset_import if one.domain in DOMAINS]
    if len(own) < 2 and all(one.domain == "" for one in own):
        return False
    version = max(one.version for one in own)
    others = [one for one in model.opset_import if one.domain not in DOMAINS]
    own[0].domain, own[0].version = "", version
    assign(model.opset_import, [own[0], *others])
    return True


def free_sizes(model: ModelProto) -> bool:
    """Leave open what negative sizes, and a batch of none, stand for in old exporters' files.

    Returns:
        Whether anything changed.
    """
    changed = False
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for axis, size in enumerate(value.type.tensor_type.shape.dim):
            none = size.HasField("dim_value") and size.dim_value <= 0
            if none and (size.dim_value < 0 or (axis == 0 and _is_image(value))):
                size.Clear()
                changed = True
    return changed


def _is_image(value: ValueInfoProto) -> bool:
    """Tell whether it has a batch in front: a batch of no images can only mean any."""
    sizes = [size.dim_value for size in value.type.tensor_type.shape.dim]
    return len(sizes) > 1 and all(sizes[1:])


def declare_channels(model: ModelProto) -> list[str]:
    """Declare the channels of inputs that convolutions read, where those are left open.

    Args:
        model: The model, which is changed.

    Returns:
        The inputs that it declared.
    """
    graph = OnnxGraph(model)
    inputs = {value.name: value for value in graph.inputs}
    declared = []
    for node in graph.nodes:
        whole = is_op(node, "Conv") and len(node.input) > 1
        kernel = graph.initializers.get(node.input[1]) if whole else None
        if kernel is None or len(kernel.dims) < 3:
            continue
        channels = kernel.dims[1] * attributes(node).get("group", 1)
        found = _source(graph, node.input[0], len(kernel.dims))
        if found is None or found[0] not in inputs or channels < 1:
            continue
        name, axes = found
        if _declare(inputs[name], axes.index(1), channels, len(axes)):
            declared.append(name)
    return declared


def _source(graph: OnnxGraph, name: str, rank: int) -> tuple[str, list[int]] | None:
    """Return the input that a value is made of point by point, and which axis each of its is."""
    axes = list(range(rank))
    for _ in graph.nodes:  # a damaged graph may go round
        node = graph.makers.get(name)
        if node is None:
            return name, axes
        if is_op(node, "Transpose"):
            perm = list(attributes(node).get("perm", ()))
            if sorted(perm) != list(range(rank)):
                return None
            axes = [axes[perm.index(axis)] for axis in range(rank)]
        elif not is_op(node, *_POINTWISE):
            return None
        data = [one for one in node.input if one and one not in graph.fixed]
        if len(data) != 1:
            return None
        (name,) = data
    return None


def _declare(value: ValueInfoProto, axis: int, channels: int, rank: int) -> bool:
    """Set the size of an axis that is open; whether it was."""
    kind = value.type.tensor_type
    shape: Sequence[int | None] | None = shape_of(value)
    if shape is None:
        for _ in range(rank):
            kind.shape.dim.add()
    elif len(shape) != rank or shape[axis] is not None:
        return False
    kind.shape.dim[axis].Clear()
    kind.shape.dim[axis].dim_value = channels
    return True
