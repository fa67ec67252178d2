"""Sequences of tensors that are taken apart where they stand: what PyTorch writes for `chunk`.

SplitToSequence with SequenceAt at constant places is a Split, and ConcatFromSequence of a
SequenceConstruct is a Concat.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dsconvert.base.predictor import Array

from .constants import constant_of
from .graph import OnnxGraph, all_names, attributes, fresh_name, is_op
from .messages import assign, copied

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

_SPLIT_INPUT = 13
"""The opset in which Split takes its sizes as an input, Squeeze and Unsqueeze their axes."""


def without_sequences(model: ModelProto) -> ModelProto:
    """Put Split and Concat in the place of sequences whose parts are known.

    Args:
        model: The model, its weights in memory; it is not changed.

    Returns:
        A new model; the given one where nothing is to be done.
    """
    graph = OnnxGraph(model)
    if graph.opset < _SPLIT_INPUT or not any("Sequence" in node.op_type for node in graph.nodes):
        return model
    taken = set(all_names(model.graph))
    places: dict[int, list[NodeProto]] = {}
    gone: set[int] = set()
    for node in graph.nodes:
        made = None
        if is_op(node, "SplitToSequence"):
            made = _split(graph, node, taken)
        elif is_op(node, "ConcatFromSequence"):
            made = _joined(graph, node, taken)
        if made is not None:
            places[id(node)] = made
            gone |= {id(one) for one in _beside(graph, node)}
    if not places:
        return model
    nodes: list[NodeProto] = []
    for node in graph.nodes:
        if id(node) in places:
            nodes += places[id(node)]
        elif id(node) not in gone:
            nodes.append(copied(node))
    new = copied(model)
    assign(new.graph.node, nodes)
    return new


def _beside(graph: OnnxGraph, node: NodeProto) -> list[NodeProto]:
    """Return the nodes that go with one: the readers of a sequence, or what made it."""
    if is_op(node, "SplitToSequence"):
        return list(graph.readers.get(node.output[0], ()))
    return [graph.makers[node.input[0]]]


def _split(graph: OnnxGraph, node: NodeProto, taken: set[str]) -> list[NodeProto] | None:
    """Return a Split whose outputs are those of the SequenceAt that read a sequence."""
    from onnx import helper

    name, given = node.output[0], attributes(node)
    axis, sizes = given.get("axis", 0), _sizes(graph, node)
    if sizes is None or name in graph.outputs:
        return None
    wanted: list[tuple[int, str]] = []
    for reader in graph.readers.get(name, ()):
        at = constant_of(graph, reader.input[1]) if is_op(reader, "SequenceAt") else None
        if at is None or not -len(sizes) <= int(at) < len(sizes):
            return None
        wanted.append((int(at) % len(sizes), reader.output[0]))
    parts = [fresh_name(f"{name}_{i}", taken) for i in range(len(sizes))]
    split = fresh_name(f"{name}_sizes", taken)
    title = node.name or name
    nodes = [
        _constant(split, sizes),
        helper.make_node("Split", [node.input[0], split], parts, title, axis=axis),
    ]
    flat = len(node.input) < 2 and not given.get("keepdims", 1)
    axes = fresh_name(f"{name}_axes", taken)
    if flat:
        nodes.append(_constant(axes, np.array([axis])))
    for place, output in wanted:
        kind, inputs = ("Squeeze", [parts[place], axes]) if flat else ("Identity", [parts[place]])
        nodes.append(helper.make_node(kind, inputs, [output], f"{output}_part"))
    return nodes


def _sizes(graph: OnnxGraph, node: NodeProto) -> Array | None:
    """Return the sizes of the parts along the axis; None where they are not known."""
    size: Array | None = np.array(1)
    if len(node.input) > 1 and node.input[1]:
        size = constant_of(graph, node.input[1])
    if size is None or size.ndim:
        return size
    shape, axis = graph.shapes.get(node.input[0]), attributes(node).get("axis", 0)
    if shape is None or not -len(shape) <= axis < len(shape) or shape[axis] is None:
        return None
    whole, rest = divmod(int(shape[axis] or 0), int(size))
    return np.array([int(size)] * whole + [rest] * (rest > 0))


def _joined(graph: OnnxGraph, node: NodeProto, taken: set[str]) -> list[NodeProto] | None:
    """Return a Concat of the tensors that a sequence was made of."""
    from onnx import helper

    maker = graph.makers.get(node.input[0])
    if maker is None or not is_op(maker, "SequenceConstruct") or _is_read_twice(graph, maker):
        return None
    given, inputs = attributes(node), list(maker.input)
    nodes: list[NodeProto] = []
    if given.get("new_axis", 0):
        axes = fresh_name(f"{node.output[0]}_axes", taken)
        nodes.append(_constant(axes, np.array([given["axis"]])))
        inputs = [fresh_name(f"{node.output[0]}_{i}", taken) for i in range(len(inputs))]
        for one, new in zip(maker.input, inputs, strict=True):
            nodes.append(helper.make_node("Unsqueeze", [one, axes], [new], f"{new}_axis"))
    name = node.name or node.output[0]
    joined = helper.make_node("Concat", inputs, list(node.output), name, axis=given["axis"])
    return [*nodes, joined]


def _is_read_twice(graph: OnnxGraph, maker: NodeProto) -> bool:
    name = maker.output[0]
    return len(graph.readers.get(name, ())) > 1 or name in graph.outputs


def _constant(name: str, value: Array) -> NodeProto:
    from onnx import helper, numpy_helper

    tensor = numpy_helper.from_array(np.asarray(value, np.int64), name)
    return helper.make_node("Constant", [], [name], f"{name}_constant", value=tensor)
