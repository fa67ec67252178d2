"""What an ONNX graph computes from sizes that are known: constants, in all but name.

Exporters compare a batch of 1 with 1 in the graph, as the program did, or a number of channels
where the batch is free; and ONNX spells causal attention out with a mask of the sequence's length.
"""

from __future__ import annotations

import numpy as np

from dsconvert.base.predictor import Array, Shape

from .constants import constant_of
from .graph import OnnxGraph, attributes, is_op, reads_of
from .shapes import inferred, shape_of
from .subgraph import Part, Unable

_BATCHES = (11, 13)


def known_sizes(graph: OnnxGraph) -> dict[str, Array]:
    """Return the shapes, parts of shapes and single sizes that are fixed, by their names."""
    if not graph.sizes_found:
        graph.sizes_found.append(_found(graph))
    return graph.sizes_found[0]


def _found(graph: OnnxGraph) -> dict[str, Array]:
    found: dict[str, Array] = {}
    sizes: dict[str, tuple[int | None, ...]] = {}
    shapes = _shapes(graph)
    for node in graph.nodes:
        value: Array | None = None
        shape = shapes.get(node.input[0]) if is_op(node, "Shape") else None
        if shape is not None:
            given = attributes(node)
            sizes[node.output[0]] = shape[given.get("start", 0) : given.get("end")]
            value = np.array(sizes[node.output[0]], object)
        elif is_op(node, "Gather") and node.input[0] in sizes:
            value = _at(sizes[node.input[0]], constant_of(graph, node.input[1]))
        elif is_op(node, "Size") and node.input[0] in sizes:  # how many axes there are
            value = np.array(len(sizes[node.input[0]]))
        if value is not None and None not in np.ravel(value):
            found[node.output[0]] = np.array(value, np.int64)
    return found


def sized_constant_of(graph: OnnxGraph, name: str) -> Array | None:
    """Return the value of what depends on known sizes and on what the model holds.

    Args:
        graph: The graph.
        name: The value's name.

    Returns:
        The value; None for anything else, and for what ONNX Runtime cannot compute.
    """
    if name not in graph.sized:
        return constant_of(graph, name) if name in graph.stored or name in graph.fixed else None
    if name not in graph.folded:
        graph.folded[name] = _computed(graph, name)
    return graph.folded[name]


def _computed(graph: OnnxGraph, name: str) -> Array | None:
    known = known_sizes(graph)
    wanted, nodes = {name} - known.keys(), []
    for node in reversed(graph.nodes_without_constants):
        if wanted.isdisjoint(node.output):
            continue
        reads = set(reads_of(node)) - known.keys()
        if not graph.changing.isdisjoint(reads):
            return None  # a size that is free
        wanted |= reads
        nodes.append(node)
    try:
        value = Part(graph, nodes[::-1], {}, [name], known).run({})[name]
    except Unable:
        return None
    return value if isinstance(value, np.ndarray) else None


def _shapes(graph: OnnxGraph) -> dict[str, Shape]:
    """Return shapes as far as they are the same for any batch.

    Inference gives up where a Reshape keeps a free batch and has a -1 beside; with two numbers in
    place of the batch it finds what does not depend on it.
    """
    declared = [shape_of(value) or () for value in graph.inputs]
    found = dict(graph.shapes)
    if not any(is_op(node, "Shape") for node in graph.nodes) or not all(
        None not in shape[1:] for shape in declared
    ):
        return found
    sized = []
    for batch in _BATCHES:
        try:
            given = [tuple(batch if size is None else size for size in one) for one in declared]
            sized.append(inferred(graph.model, graph.folder, given))
        except Exception:  # it helps where it can; nothing depends on it
            return found
    few, many = sized
    for name in few.keys() & many.keys():
        one, other = few[name][0], many[name][0]
        if len(one) == len(other):
            found[name] = tuple(a if a == b else None for a, b in zip(one, other, strict=True))
    return found


def _at(sizes: tuple[int | None, ...], places: Array | None) -> Array | None:
    """Return the sizes at some places; None where these are unknown, or outside."""
    if places is None or not all(-len(sizes) <= place < len(sizes) for place in np.ravel(places)):
        return None
    return np.array(np.array(sizes, object)[places], object)
