"""Pairs of an ONNX graph with their inner channels at the same range."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dsconvert.base.predictor import Array, at_once
from dsconvert.formats.onnx.constants import constant_of
from dsconvert.formats.onnx.graph import (
    OnnxGraph,
    all_names,
    attributes,
    fresh_name,
    is_op,
    key,
)
from dsconvert.formats.onnx.messages import assign, copied
from dsconvert.formats.onnx.shapes import shape_of
from dsconvert.formats.onnx.subgraph import Part
from dsconvert.formats.onnx.tensors import tensor_from

from ...core.fitting.equalization import Ranges, move, note

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

_CHUNK = 32


@dataclass(frozen=True)
class OnnxPair:
    """Two Convs with nothing in between; only the second reads the first."""

    first: NodeProto
    second: NodeProto

    @property
    def value(self) -> str:
        """The name of the value between them."""
        return str(self.first.output[0])


def find_pairs(graph: OnnxGraph) -> list[OnnxPair]:
    """Return a depthwise Conv followed only by a 1×1 one, or the reverse, of constant weights."""
    found = []
    for node in graph.nodes:
        kind = _kind(graph, node)
        if kind is None or (_has_bias(node) and constant_of(graph, node.input[2]) is None):
            continue
        second = graph.only_reader(node.output[0])
        if second is None or second.input[0] != node.output[0]:
            continue
        if {kind, _kind(graph, second)} == {"depthwise", "pointwise"}:
            found.append(OnnxPair(node, second))
    return found


def _has_bias(node: NodeProto) -> bool:
    return len(node.input) > 2 and bool(node.input[2])


def _kind(graph: OnnxGraph, node: NodeProto) -> str | None:
    """Tell whether a Conv is "depthwise" or "pointwise"; None for all else."""
    if not is_op(node, "Conv") or len(node.input) < 2:
        return None
    kernel = constant_of(graph, node.input[1])
    if kernel is None or kernel.ndim != 4:
        return None
    group = attributes(node).get("group", 1)
    if group > 1 and kernel.shape[1] == 1:
        return "depthwise"
    return "pointwise" if group == 1 and kernel.shape[2:] == (1, 1) else None


def equalized(
    model: ModelProto, images: Sequence[Array], folder: Path | None = None
) -> tuple[ModelProto, tuple[str, ...]]:
    """Return a model of the same outputs whose pairs have equal ranges inside.

    Args:
        model: The model; it is not changed.
        images: One array per input, (n, ...), as the model takes them.
        folder: Where its external data are.

    Returns:
        The new model, or the one given where it has no such pairs, and a note.

    Raises:
        InputError: If ONNX Runtime cannot run it on these images.
    """
    graph = OnnxGraph(model, folder)
    pairs = find_pairs(graph)
    if not pairs:
        return model, ()
    ranges = _measured(graph, pairs, images)
    kernels: dict[str, Array] = {}  # by the node's first output: one may stand in two pairs
    biases: dict[str, Array] = {}
    for pair in pairs:
        # (N, C, 1, 1) reads channels in axis 1; of a depthwise (C·m, 1, kh, kw) they are axis 0.
        axes = (0, 1) if _kind(graph, pair.second) == "pointwise" else (0, 0)
        first, second = (_kernel(graph, node, kernels) for node in (pair.first, pair.second))
        moved = move(first, second, ranges[pair.value].scales(), axes)
        kernels |= {pair.first.output[0]: moved[0], pair.second.output[0]: moved[1]}
        bias = constant_of(graph, pair.first.input[2]) if _has_bias(pair.first) else None
        if bias is not None:
            scaled = bias * ranges[pair.value].scales()
            biases[pair.first.output[0]] = scaled.astype(bias.dtype)
    made = _with_weights(graph, {1: kernels, 2: biases})
    return made, (note([ranges[pair.value] for pair in pairs]),)


def _kernel(graph: OnnxGraph, node: NodeProto, moved: Mapping[str, Array]) -> Array:
    kernel = moved.get(node.output[0], constant_of(graph, node.input[1]))
    if kernel is None:
        raise TypeError(f"{node.name} has no constant kernel")
    return kernel


def _measured(
    graph: OnnxGraph, pairs: Sequence[OnnxPair], images: Sequence[Array]
) -> dict[str, Ranges]:
    """Return the range of each channel between the nodes of each pair, by the value's name."""
    given = graph.input_types
    found = {pair.value: Ranges.none(len(_kernel(graph, pair.first, {}))) for pair in pairs}
    part = Part(graph, graph.nodes_without_constants, given, list(found), {})
    fixed = shape_of(graph.inputs[0]) or (None,)
    size = fixed[0] or at_once(images, _CHUNK)
    for start in range(0, len(images[0]), size):
        # The last of a fixed batch is filled up with samples that were seen already.
        rows = (
            np.arange(start, start + size) % len(images[0])
            if fixed[0]
            else slice(start, start + size)
        )
        batch = {name: array[rows] for name, array in zip(given, images, strict=True)}
        for name, values in part.run(batch).items():
            found[name].add(values, 1)
    return found


def _with_weights(graph: OnnxGraph, weights: Mapping[int, Mapping[str, Array]]) -> ModelProto:
    """Return a copy of the model with other weights.

    Args:
        graph: Of the model.
        weights: By the number of the input that holds them and the node's first output.
    """
    model = copied(graph.model)
    taken = set(all_names(model.graph))
    for node in model.graph.node:
        for place, arrays in weights.items():
            array = arrays.get(key(node))
            if array is None:
                continue
            name = fresh_name(f"{node.input[place]}_equalized", taken)
            model.graph.initializer.append(_like(graph, node.input[place], array, name))
            node.input[place] = name
    nodes, gone = graph.without_unread(model.graph.node)
    assign(model.graph.node, nodes)
    unread = gone & graph.initializers.keys()
    for values in (model.graph.initializer, model.graph.input):
        assign(values, [value for value in values if value.name not in unread])
    return model


def _like(graph: OnnxGraph, name: str, kernel: Array, called: str) -> TensorProto:
    """Return the kernel as a tensor of the type that the one of this name has."""
    from onnx import helper

    old = constant_of(graph, name)
    dtype = kernel.dtype if old is None else old.dtype
    return tensor_from(kernel, called, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
