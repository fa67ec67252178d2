"""Whether data look like those that an ONNX model was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dsconvert.base.predictor import Array

from .norm_convergence import is_unconverged

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

    from dsconvert.formats.onnx.graph import OnnxGraph

_PROBE = 32
"""Samples looked at: their pixels are many."""


def variance_at_first_batch_norm(
    model: ModelProto, folder: Path | None, inputs: Sequence[Array]
) -> tuple[str, float] | None:
    """Return what the data do at the first BatchNormalization of a graph.

    Args:
        model: The graph, which runs; its external weights are named, not loaded.
        folder: Where they are.
        inputs: One array per input that is fed, (n, ...), as the graph takes them.

    Returns:
        The node's name, or its output's, and the median over its channels of the variance of what
        it gets, divided by the variance that it remembers from training. None without such a node
        (most exporters fold it into the convolution before), and where it was not trained for
        long.
    """
    from dsconvert.formats.onnx.constants import constant_of
    from dsconvert.formats.onnx.graph import OnnxGraph, key

    graph = OnnxGraph(model, folder)
    norm = next((n for n in graph.nodes if n.op_type == "BatchNormalization"), None)
    trained = None if norm is None else constant_of(graph, norm.input[4])
    if norm is None or trained is None or (trained == 1).all():
        return None
    before = list(takewhile(lambda node: node is not norm, graph.nodes_without_constants))
    values = _value(graph, before, norm.input[0], inputs)
    axes = (0, *range(2, values.ndim))
    mean = constant_of(graph, norm.input[3])
    if mean is not None and is_unconverged(values, axes, mean, trained):
        return None
    alive = trained > 1e-3 * trained.max()
    ratios = values.var(axis=axes, dtype=np.float64)[alive] / trained[alive]
    return norm.name or key(norm), float(np.median(ratios))


def _value(
    graph: OnnxGraph, nodes: Sequence[NodeProto], name: str, inputs: Sequence[Array]
) -> Array:
    """Return a value inside the graph for all samples, (n, C, ...)."""
    from dsconvert.formats.onnx.shapes import shape_of
    from dsconvert.formats.onnx.subgraph import Part

    feeds: dict[str, Array] = dict(zip((value.name for value in graph.inputs), inputs, strict=True))
    if name in feeds:
        return feeds[name]
    part = Part(graph, nodes, graph.input_types, [name], {})
    batches: list[Any] = [(shape_of(value) or (None,))[0] for value in graph.inputs]
    count = min(_PROBE, len(inputs[0]))
    size = next((batch for batch in batches if batch), count)
    starts = range(0, count - size + 1, size) if size < count else (0,)
    parts = ({key: array[i : i + size] for key, array in feeds.items()} for i in starts)
    values: Array = np.concatenate([part.run(one)[name] for one in parts])
    return values
