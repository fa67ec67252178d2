"""Outputs and inner values that ONNX Runtime's tools misread, set apart.

The quantizer gives the input of a Relu or Clip the range of its result where nothing else reads it,
and then takes the rectifier away. It counts neither the graph's outputs nor the graphs inside nodes
as readers: an embedding before the last Relu loses its negative values, and the branch of an If
reads what was not rectified.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from dsconvert.formats.onnx.graph import OnnxGraph, all_names, fresh_name, is_op, reads_of
from dsconvert.formats.onnx.inlining import read_as
from dsconvert.formats.onnx.messages import assign, copied

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto

_RECTIFIERS = ("Relu", "Clip")


def part_outputs(model: ModelProto) -> bool:
    """Put an Identity behind each output that a rectifier reads; the graph goes on before it.

    Args:
        model: The model, which is changed.

    Returns:
        Whether anything changed.
    """
    from onnx import helper

    graph = OnnxGraph(model)
    read = {node.input[0] for node in graph.nodes if is_op(node, *_RECTIFIERS)}
    parted = [name for name in graph.outputs if name in read and name in graph.makers]
    if not parted:
        return False
    taken = set(all_names(model.graph))
    inner = {name: fresh_name(f"{name}_inner", taken) for name in parted}
    nodes = []
    for node in model.graph.node:
        for names in (node.input, node.output):
            renamed = [inner.get(name, name) for name in names]
            if renamed != list(names):
                names[:] = renamed
        nodes.append(node)
        nodes += [
            helper.make_node("Identity", [inner[name]], [name], f"{name}_output")
            for name in parted
            if inner[name] in node.output
        ]
    assign(model.graph.node, nodes)
    return True


def part_captured(model: ModelProto) -> bool:
    """Let the graphs inside nodes read what the main graph computes from Identity nodes.

    Args:
        model: The model, which is changed.

    Returns:
        Whether anything changed.
    """
    from onnx import helper

    graph = OnnxGraph(model)
    taken = set(all_names(model.graph))
    apart: dict[str, str] = {}
    nodes = []
    for node in model.graph.node:
        inside = [name for name in reads_of(node) if name not in node.input]
        for name in inside:
            if name in graph.makers and name not in apart:
                apart[name] = fresh_name(f"{name}_inside", taken)
                nodes.append(helper.make_node("Identity", [name], [apart[name]], apart[name]))
        if any(name in apart for name in inside):
            given = list(node.input)
            read_as(node, apart)
            node.input[:] = given
        nodes.append(node)
    if apart:
        assign(model.graph.node, nodes)
    return bool(apart)


def take_echoes(model: ModelProto) -> dict[int, ValueInfoProto]:
    """Take away the outputs that are inputs, which no tool of ONNX Runtime tells from the others.

    Args:
        model: The model, which is changed.

    Returns:
        What `give_back` gives back, by their places among the outputs.
    """
    given = {value.name for value in model.graph.input}
    outputs = list(model.graph.output)
    echoes = {place: copied(value) for place, value in enumerate(outputs) if value.name in given}
    if echoes:
        assign(model.graph.output, [value for value in outputs if value.name not in given])
    return echoes


def give_back(model: ModelProto, echoes: Mapping[int, ValueInfoProto]) -> None:
    """Put outputs that `take_echoes` took away in their places again.

    Args:
        model: The model, whose inputs are what they were; it is changed.
        echoes: What it returned.
    """
    outputs = list(model.graph.output)
    for place, value in sorted(echoes.items()):
        outputs.insert(place, value)
    if echoes:
        assign(model.graph.output, outputs)
