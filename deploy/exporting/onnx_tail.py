"""The tail of an .onnx file, and the file without it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dsconvert.base.predictor import Array
from dsconvert.formats.onnx.constants import constant_of
from dsconvert.formats.onnx.graph import OnnxGraph, attributes
from dsconvert.formats.onnx.messages import assign, copied
from dsconvert.formats.onnx.open import load
from dsconvert.formats.onnx.session import session

from ..runtimes.registry import open_runtime
from ..runtimes.session import encode
from .output_tail import SAMPLES, OutputTail, find_tail
from .rebuilding import CutOperator, onnx_step, told_rebuilding

if TYPE_CHECKING:
    from onnx import ModelProto


def tail_of(path: Path, samples: Sequence[Array]) -> OutputTail:
    """Find the tail of a float32 file.

    Args:
        path: The file.
        samples: One array per input, (n, ...), as the file takes them.
    """
    model = load(path, weights=True)
    made = {name: node for node in model.graph.node for name in node.output if name}
    fed = _feeds(path, samples)

    def read_by(name: str) -> list[str]:
        return [source for source in made[name].input if source in made]

    def values(names: Sequence[str]) -> Mapping[str, Array]:
        return _values(model, names, fed)

    tail = find_tail([output.name for output in model.graph.output], read_by, values)
    return OutputTail(
        tail.mixed, tuple(name for name in tail.cuts if made[name].op_type != "Constant")
    )


def makers(path: Path, tensors: Sequence[str]) -> dict[str, str]:
    """Return the operators of the nodes that make these tensors, by the nodes' names."""
    wanted = set(tensors)
    nodes = load(path).graph.node
    return {node.name: node.op_type for node in nodes if wanted.intersection(node.output)}


def rebuilding(model: ModelProto, tail: OutputTail) -> tuple[str, ...]:
    """Tell how the mixed outputs of a model are made of what its tail reads.

    Args:
        model: With its weights.
        tail: Of its outputs.
    """
    graph = OnnxGraph(model, None)

    def step_of(name: str) -> CutOperator | None:
        if name not in tail.mixed:
            return None
        node = graph.makers[name]
        reshape = node.op_type == "Reshape" and len(node.input) > 1
        given = constant_of(graph, node.input[1]) if reshape else None
        shape = None if given is None else given.tolist()
        reads = node.input if shape is None else node.input[:1]
        return onnx_step(node.op_type, node.name, attributes(node), reads, shape)

    outputs = {output.name: output.name for output in model.graph.output}
    gone = {name: name for name in outputs if name in tail.mixed}
    parts = {name: name for name in (*outputs, *tail.cuts) if name not in gone}
    return told_rebuilding(gone, step_of, parts)


def without_tail(model: ModelProto, tail: OutputTail) -> ModelProto:
    """Make the model whose mixed outputs are replaced by what the tail reads.

    Args:
        model: With its weights; it is not changed.
        tail: Of its outputs.
    """
    from onnx import ValueInfoProto, shape_inference

    split = copied(model)
    graph = split.graph
    known = {value.name: value for value in shape_inference.infer_shapes(model).graph.value_info}
    kept = [output for output in graph.output if output.name not in tail.mixed]
    there = {output.name for output in kept}
    kept += [known.get(name, ValueInfoProto(name=name)) for name in tail.cuts if name not in there]
    assign(graph.output, kept)
    needed = {output.name for output in graph.output}
    nodes = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            nodes.append(node)
            needed.update(node.input, _inner_reads(node))
    assign(graph.node, nodes[::-1])
    assign(graph.initializer, [one for one in graph.initializer if one.name in needed])
    return split


def _inner_reads(node: Any) -> list[str]:
    """Return what the graphs within a node read."""
    found: list[str] = []
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                found += [*inner.input, *_inner_reads(inner)]
    return found


def _feeds(path: Path, samples: Sequence[Array]) -> list[dict[str, Array]]:
    """Return the first samples, in as many feeds as the file's batch makes of them."""
    runtime = open_runtime(path)
    size = runtime.batch or SAMPLES
    count = min(len(samples[0]), SAMPLES)
    rows = [np.arange(start, start + size) % count for start in range(0, count, size)]
    if runtime.batch is None:
        rows = [np.arange(count)]
    return [
        {
            info.name: encode(array[chosen], info)
            for info, array in zip(runtime.inputs, samples, strict=True)
        }
        for chosen in rows
    ]


def _values(
    model: Any, names: Sequence[str], feeds: Sequence[Mapping[str, Array]]
) -> dict[str, Array]:
    """Values that have the samples on their first axis."""
    from onnx import ValueInfoProto

    watched = copied(model)
    own = {value.name for value in model.graph.output}
    watched.graph.output.extend(ValueInfoProto(name=name) for name in names if name not in own)
    running = session(watched)
    found: dict[str, list[Array]] = {name: [] for name in names}
    for feed in feeds:
        for name, array in zip(names, running.run(list(names), dict(feed)), strict=True):
            found[name].append(array)
    return {
        name: np.concatenate(parts)
        for name, parts in found.items()
        if all(isinstance(part, np.ndarray) and part.ndim > 1 for part in parts)
    }
