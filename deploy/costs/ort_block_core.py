"""What ONNX Runtime does inside a network: its own optimized graph without the ends.

ONNX Runtime keeps images blocked by channels between float convolutions and channels last between
int8 ones, and converts at the ends of a graph. In a network that happens once; in the file of one
block it was measured as a third of the time of a pair (56×56, 64→64), and would hide what a pair
gains. So the ends are cut off the graph that ONNX Runtime has optimized for this machine.

A form that begins or ends in another layout than its neighbours would have, as a depth multiplier
above one does, gets this conversion for nothing.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from dsconvert.base.quiet import captured
from dsconvert.formats.onnx.messages import in_bytes
from dsconvert.formats.onnx.open import load
from dsconvert.formats.onnx.session import session

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto

_INTO = ("QuantizeLinear", "Transpose", "ReorderInput")
"""What brings the input into the layout and type that is computed with."""
_OUT_OF = ("DequantizeLinear", "Transpose", "ReorderOutput")


def inside(file: bytes) -> bytes:
    """Optimize an .onnx file for this machine and cut the conversions at both ends.

    Its inputs and outputs are whatever lies there: the values of the result are meaningless, its
    time is not.

    Args:
        file: The bytes of a model with one input and one output.

    Raises:
        MissingExtra: If onnx or ONNX Runtime is not installed.
        Exception: Whatever ONNX Runtime raises for a model that it cannot load.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "optimized.onnx")
        with captured():
            session(file, optimized=path)
        model = load(path)
    _cut_input(model.graph)
    _cut_output(model.graph)
    return in_bytes(model)


def _cut_input(graph: GraphProto) -> None:
    """Make what the first conversions give the input of the graph."""
    from onnx import helper

    (given,) = graph.input
    name, kind = given.name, given.type.tensor_type.elem_type
    shape = [size.dim_value for size in given.type.tensor_type.shape.dim]
    while (node := _only_reader(graph, name)) is not None and node.op_type in _INTO:
        if node.op_type == "Transpose":
            (order,) = (a.ints for a in node.attribute if a.name == "perm")
            shape = [shape[axis] for axis in order]
        elif node.op_type == "ReorderInput":
            shape[1] = _channels(graph, node.output[0])  # filled up to whole blocks
        elif node.op_type == "QuantizeLinear":
            zero_point = next(c for c in graph.initializer if c.name == node.input[2])
            kind = zero_point.data_type
        name = node.output[0]
        graph.node.remove(node)
    given.CopyFrom(helper.make_tensor_value_info(name, kind, shape))


def _cut_output(graph: GraphProto) -> None:
    """Make what the last conversions read the output of the graph, of whatever size it has."""
    from onnx import helper

    (given,) = graph.output
    name, kind = given.name, given.type.tensor_type.elem_type
    while (node := _maker(graph, name)) is not None and node.op_type in _OUT_OF:
        if node.op_type == "DequantizeLinear":
            zero_point = next(c for c in graph.initializer if c.name == node.input[2])
            kind = zero_point.data_type
        name = node.input[0]
        graph.node.remove(node)
    given.CopyFrom(helper.make_tensor_value_info(name, kind, None))


def _channels(graph: GraphProto, name: str) -> int:
    """How many channels the first convolution that reads a value takes."""
    node = next(node for node in graph.node if node.op_type == "Conv" and node.input[0] == name)
    kernel = next(constant for constant in graph.initializer if constant.name == node.input[1])
    groups = next((a.i for a in node.attribute if a.name == "group"), 1)
    return int(kernel.dims[1] * groups)


def _only_reader(graph: GraphProto, name: str) -> NodeProto | None:
    """The node that alone reads a value, if one does alone."""
    readers = [node for node in graph.node if name in node.input]
    return readers[0] if len(readers) == 1 else None


def _maker(graph: GraphProto, name: str) -> NodeProto | None:
    """The node that makes a value, if it makes nothing else and nobody else reads it."""
    if any(name in node.input for node in graph.node):
        return None
    return next((node for node in graph.node if list(node.output) == [name]), None)
