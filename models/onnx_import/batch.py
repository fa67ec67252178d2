"""A free batch for graphs that were exported with a fixed one.

A graph of batch 1 usually computes each sample by itself, and only its Reshapes (and Resizes to
given sizes) have the batch written into them. Those are given the batch of the input instead;
whether the result really computes each sample by itself is then tried.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dsconvert.base.errors import InputError, require
from dsconvert.formats.onnx.messages import copied
from dsconvert.formats.onnx.session import sentence

from .graph import ADDED, Graph, Node
from .probe import ProbedValues, opened, random_feed

_BATCH = ADDED + "batch"
_TARGETS = {"Reshape": 1, "Resize": 3, "Expand": 1}
"""Operators with a shape, and which of their inputs it is."""


def fixed_batch(graph: Graph, facts: ProbedValues) -> int | None:
    """Return the batch that all inputs have in common and that cannot be chosen, or None."""
    sizes = {shape[0] if shape else 0 for shapes in facts.inputs.values() for shape in shapes}
    return sizes.pop() if len(sizes) == 1 and 0 not in sizes else None


def free_batch(graph: Graph, facts: ProbedValues, batch: int) -> Any:
    """Return a copy of a model in which the first axis of all inputs is free.

    Args:
        graph: The graph.
        facts: What is known of its values.
        batch: The batch that is written into it.
    """
    helper = require("onnx", "onnx", "to import .onnx files").helper
    proto = copied(graph.proto)
    names = {info.name for info in graph.inputs}
    for value in proto.graph.input:
        if value.name in names:
            value.type.tensor_type.shape.dim[0].dim_param = _BATCH
    for value in proto.graph.output:
        value.type.tensor_type.ClearField("shape")
    del proto.graph.value_info[:]
    added = [
        helper.make_node("Shape", [graph.inputs[0].name], [ADDED + "shape"]),
        _constant(ADDED + "zero", [0]),
        helper.make_node("Gather", [ADDED + "shape", ADDED + "zero"], [_BATCH], axis=0),
    ]
    for node in graph.live:
        target = _written_batch(graph, facts, node, batch)
        if target is None:
            continue
        name = f"{ADDED}{node.index}"
        added.append(_constant(f"{name}/rest", target[1:]))
        added.append(helper.make_node("Concat", [_BATCH, f"{name}/rest"], [name], axis=0))
        proto.graph.node[node.index].input[_TARGETS[node.op]] = name
    for position, node in enumerate(added):
        node.name = f"{ADDED}node{position}"
        proto.graph.node.insert(position, node)
    return proto


def check_each_sample(original: Graph, freed: Graph, facts: ProbedValues, seed: int) -> None:
    """Compare the freed model on two batches in one with the original on one after the other.

    Raises:
        InputError: If they do not agree: the samples of a batch belong together.
    """
    random = np.random.default_rng(seed)
    shapes = [facts.inputs[info.name][0] for info in original.inputs]
    parts = [random_feed(original.inputs, shapes, random) for _ in range(2)]
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    run = opened(original.proto)
    wanted = zip(*(run.run(list(original.outputs), part) for part in parts), strict=True)
    try:
        got = opened(freed.proto).run(list(freed.outputs), whole)
    except Exception as error:  # ONNX Runtime's errors share no base class
        raise InputError(
            f"it does not run on a larger one ({sentence(error)})", code="samples-not-independent"
        ) from error
    for name, ours, pair in zip(original.outputs, got, wanted, strict=True):
        joined = pair[0].ndim and len({part.shape[1:] for part in pair}) == 1  # else as NonZero's
        theirs = np.concatenate(pair) if joined else pair[0]
        largest = np.abs(theirs[np.isfinite(theirs)]).max(initial=1e-6)
        same = ours.shape == theirs.shape and np.allclose(
            ours, theirs, rtol=1e-3, atol=1e-3 * largest, equal_nan=True
        )
        if not same:
            raise InputError(
                f"the output {name!r} of one sample depends on the others",
                code="samples-not-independent",
            )


def check_kept(freed: Graph, facts: ProbedValues) -> None:
    """See that what is computed of a batch has as many rows as it, wherever that is.

    A condition on the mean of all samples, say, may fall out alike for the few that are tried.

    Args:
        freed: The graph with a free batch.
        facts: What is known of its values.

    Raises:
        InputError: If a value is the same size whatever the batch is.
    """
    for node in freed.live:
        for name in filter(None, node.outputs):
            if len(set(facts.shapes[name])) == 1 < len(facts.shapes[name]):
                raise InputError(
                    f"{name!r} is computed of all samples together",
                    code="samples-not-independent",
                )


def _written_batch(graph: Graph, facts: ProbedValues, node: Node, batch: int) -> Any:
    """Return the shape that is given to a node, if the batch stands in its first place."""
    index = _TARGETS.get(node.op)
    if index is None or not node.has(index) or (node.op == "Expand" and batch == 1):
        return None
    name = node.inputs[index]
    if name in graph.changing or name in graph.sized or name not in facts.constants:
        return None
    target = facts.constants[name][0]
    return target if target.ndim == 1 and target.size and target[0] == batch else None


def _constant(name: str, values: Any) -> Any:
    onnx = require("onnx", "onnx", "to import .onnx files")
    tensor = onnx.numpy_helper.from_array(np.asarray(values, np.int64), name)
    return onnx.helper.make_node("Constant", [], [name], value=tensor)
