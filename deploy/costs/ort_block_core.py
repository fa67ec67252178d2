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

from dsconvert.base.quiet import captured
from dsconvert.formats.onnx.constants import constant_shape
from dsconvert.formats.onnx.graph import OnnxGraph, attributes, key
from dsconvert.formats.onnx.messages import assign, in_bytes
from dsconvert.formats.onnx.open import load
from dsconvert.formats.onnx.session import session
from dsconvert.formats.onnx.shapes import shape_of

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
    graph = OnnxGraph(model)
    cut = [*_cut_input(graph), *_cut_output(graph)]
    assign(model.graph.node, [node for node in graph.nodes if key(node) not in cut])
    return in_bytes(model)


def _cut_input(graph: OnnxGraph) -> list[str]:
    """Make what the first conversions give the input of the graph; the values they made."""
    from onnx import helper

    (given,) = graph.model.graph.input
    name, kind = given.name, given.type.tensor_type.elem_type
    shape = list(shape_of(given) or ())
    cut: list[str] = []
    while (node := graph.only_reader(name)) is not None and node.op_type in _INTO:
        if node.op_type == "Transpose":
            shape = [shape[axis] for axis in attributes(node)["perm"]]
        elif node.op_type == "ReorderInput":
            shape[1] = _channels(graph, node.output[0])  # filled up to whole blocks
        elif node.op_type == "QuantizeLinear":
            kind = graph.initializers[node.input[2]].data_type
        name = node.output[0]
        cut.append(name)
    given.CopyFrom(helper.make_tensor_value_info(name, kind, shape))
    return cut


def _cut_output(graph: OnnxGraph) -> list[str]:
    """Make what the last conversions read the output of the graph, of whatever size it has."""
    from onnx import helper

    (given,) = graph.model.graph.output
    name, kind = given.name, given.type.tensor_type.elem_type
    cut: list[str] = []
    while (node := graph.makers.get(name)) is not None and node.op_type in _OUT_OF:
        if len(node.output) > 1 or len(graph.readers.get(name, ())) > len(cut[-1:]):
            break
        if node.op_type == "DequantizeLinear":
            kind = graph.initializers[node.input[2]].data_type
        cut.append(name)
        name = node.input[0]
    given.CopyFrom(helper.make_tensor_value_info(name, kind, None))
    return cut


def _channels(graph: OnnxGraph, name: str) -> int:
    """Tell how many channels the first convolution that reads a value takes."""
    node = next(n for n in graph.readers[name] if n.op_type == "Conv" and n.input[0] == name)
    shape = constant_shape(graph, node.input[1])
    assert shape is not None, "ONNX Runtime stores the kernels of its optimized graph"
    return int(shape[1] * attributes(node).get("group", 1))
