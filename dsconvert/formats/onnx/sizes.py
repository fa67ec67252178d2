"""The sizes of what an ONNX graph computes, by shape inference: before anything is computed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dsconvert.base.errors import InputError
from dsconvert.base.predictor import Shape
from dsconvert.base.size_bounds import bytes_of, check_tensor, fixed_batch, with_small_sizes

from .nodes import inner_graphs, nodes_of
from .shapes import inferred_model, shape_of
from .tensors import numpy_type

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, ValueInfoProto

_WINDOWS = ("kernel_shape", "pads", "strides", "dilations", "output_padding", "output_shape")
_MOST = 1 << 31
"""Of a window's numbers: beyond it shape inference itself runs over."""


def check_sizes(model: ModelProto, folder: Path | None, name: str) -> None:
    """Refuse a graph in which a value of one sample takes more than the bound.

    Args:
        model: The graph.
        folder: Where its external data are.
        name: What to call it.

    Raises:
        InputError: If one does; see `dsconvert.base.size_bounds`.
    """
    for node in nodes_of(model.graph):
        for attribute in node.attribute:
            if attribute.name in _WINDOWS and any(abs(size) >= _MOST for size in attribute.ints):
                raise InputError(
                    f"{name}: {attribute.name} of node {node.name or node.op_type!r} holds "
                    f"{max(attribute.ints, key=abs):,}; at most {_MOST - 1:,} is taken.",
                    "Copy or download it again.",
                    code="tensor-too-large",
                )
    found = list(_values(model, folder, None))
    fed = {value.name for value in model.graph.input}
    inputs = sum(bytes_of(shape, element) for value, shape, element in found if value in fed)
    batch = fixed_batch(shape for value, shape, _ in found if value in fed)
    for value, shape, element in found:
        check_tensor(name, f"the value {value!r}", shape, element, inputs, batch)


def largest_of(model: ModelProto, folder: Path | None, shapes: Sequence[Shape]) -> int:
    """Bytes of the largest value that a graph computes; 0 where shape inference finds none.

    Args:
        model: The graph.
        folder: Where its external data are.
        shapes: The shapes of its inputs.
    """
    found = (bytes_of(shape, element) for _, shape, element in _values(model, folder, shapes))
    return max(found, default=0)


def _values(
    model: ModelProto, folder: Path | None, shapes: Sequence[Shape] | None
) -> Iterator[tuple[str, Shape, int]]:
    """Yield the name, the shape and the bytes of an element of each value that is not stored."""
    held = {tensor.name for tensor in model.graph.initializer}
    if shapes is None:
        declared = [shape_of(one) for one in model.graph.input if one.name not in held]
        shapes = [with_small_sizes(shape or ()) for shape in declared]
    try:
        graph = inferred_model(model, folder, shapes).graph
    except Exception:  # sizes that do not go together with these; the declared ones are left
        try:
            graph = inferred_model(model, folder).graph
        except Exception:  # nothing depends on it
            return
    for value in _told(graph):
        shape, kind = shape_of(value), value.type.tensor_type.elem_type
        if value.name not in held and shape is not None and kind:
            yield value.name, shape, numpy_type(kind).itemsize


def _told(graph: GraphProto) -> Iterator[ValueInfoProto]:
    """Yield what is told of the values of a graph, and of those in its nodes."""
    yield from (*graph.input, *graph.value_info, *graph.output)
    for node in graph.node:
        for inner in inner_graphs(node):
            yield from _told(inner)
