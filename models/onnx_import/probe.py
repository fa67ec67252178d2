"""What ONNX Runtime says about a graph: the shape of every value, and the folded constants.

The original is run on one or two sets of input sizes. Every value's shape is asked for by a
Shape node that is added to it, so that no rule of shape inference is written down here a second
time; everything that does not depend on the data comes out computed. A size that differs between
the two runs is free.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dsconvert.base.errors import InputError, require
from dsconvert.base.predictor import Array
from dsconvert.formats.onnx.constants import constant_of
from dsconvert.formats.onnx.messages import assign, copied
from dsconvert.formats.onnx.session import Optimization, sentence, session

from .graph import ADDED, Graph, GraphInput
from .values import Sizes

_UNITS = (32, 64, 8, 224, 16, 28, 1, 100)
"""Free sizes are tried as multiples of these: many networks need multiples of 32."""
_SHAPE = ADDED + "shape/"
DATA_SIZED = frozenset({"NonZero", "NonMaxSuppression"})
"""Operators whose output is as long as the values decide. While sizes are looked for, places of a
given number stand for what they give: two numbers show which sizes depend on it."""
_LENGTH = ADDED + "length"
_LENGTHS = (40, 57)


@dataclass(frozen=True)
class ProbedValues:
    """What is known of a graph's values.

    Attributes:
        shapes: Each value's shape, once per probe.
        constants: The values that do not depend on the data, once per probe.
        inputs: The sizes of the inputs, once per probe.
    """

    shapes: Mapping[str, tuple[Sizes, ...]]
    constants: Mapping[str, tuple[Array, ...]]
    inputs: Mapping[str, tuple[Sizes, ...]]


def opened(model: Any, *, optimization: Optimization = "all") -> Any:
    """Open a model in ONNX Runtime.

    Raises:
        InputError: If ONNX Runtime refuses it.
    """
    try:
        return session(model, optimization=optimization)
    except Exception as error:  # ONNX Runtime's errors share no base class
        raise InputError(
            f"ONNX Runtime refuses the model: {sentence(error)}",
            "Check the file: python -c \"import onnx; onnx.checker.check_model('model.onnx')\".",
            code="does-not-load",
        ) from error


def probe(
    graph: Graph, given: Sequence[Array] | None, seed: int, *, pinned: bool = False
) -> ProbedValues:
    """Run the graph on one or two sets of sizes.

    Args:
        graph: The graph.
        given: Real inputs, whose sizes are tried first.
        seed: Of the random values.
        pinned: Whether their sizes are the only ones: just the batch stays free.

    Raises:
        InputError: If it runs on none of the sizes tried.
    """
    values = {name: constant_of(graph.onnx, name) for name in graph.onnx.stored}
    stored = {name: value for name, value in values.items() if value is not None}
    instrumented, measured, folded = _instrumented(graph, stored)
    run = opened(instrumented, optimization="none")
    refused: Exception | None = None
    data_sized = any(node.op in DATA_SIZED for node in graph.live)
    for sizes in _assignments(graph.inputs, given, pinned=pinned):
        results = []
        assignments = sizes * 2 if data_sized and len(sizes) == 1 else sizes
        try:
            for shapes, length in zip(assignments, _LENGTHS, strict=False):
                feed = random_feed(graph.inputs, shapes, np.random.default_rng(seed))
                if data_sized:
                    feed[_LENGTH] = np.array([length])
                names = [_SHAPE + name for name in measured] + folded
                results.append(run.run(names, feed) if names else [])
        except Exception as error:  # ONNX Runtime's errors share no base class
            refused = refused or error
            continue
        count = len(measured)
        return ProbedValues(
            shapes={
                name: tuple(tuple(int(size) for size in result[i]) for result in results)
                for i, name in enumerate(measured)
            },
            constants={
                name: tuple(np.asarray(result[count + i]) for result in results)
                for i, name in enumerate(folded)
            }
            | {name: (array,) for name, array in stored.items()},
            inputs={
                info.name: tuple(shapes[i] for shapes in assignments)
                for i, info in enumerate(graph.inputs)
            },
        )
    assert refused is not None
    raise InputError(
        f"the model does not run in ONNX Runtime: {sentence(refused)}",
        "Give real inputs that it runs on, or fix its input sizes.",
        code="does-not-run",
    ) from refused


def random_feed(
    inputs: Sequence[GraphInput],
    shapes: Sequence[Sizes],
    random: np.random.Generator,
    scale: float = 1.0,
    shift: float = 0.0,
) -> dict[str, Array]:
    """Random inputs: floats from a normal distribution, whole numbers 0 and 1."""
    feed = {}
    for info, shape in zip(inputs, shapes, strict=True):
        if info.dtype.kind in "biu":
            feed[info.name] = np.asarray(random.integers(0, 2, shape), info.dtype)
        else:
            values = random.standard_normal(shape) * scale + shift
            feed[info.name] = np.asarray(values, info.dtype)
    return feed


def _instrumented(graph: Graph, stored: Collection[str]) -> tuple[Any, list[str], list[str]]:
    """Return the model with the shapes of its live values and its folded constants as outputs."""
    onnx = require("onnx", "onnx", "to import .onnx files")
    proto = copied(graph.proto)
    measured = [info.name for info in graph.inputs]
    measured += [name for node in graph.live for name in node.outputs if name]
    wanted = dict.fromkeys(name for node in graph.live for name in node.inputs if name)
    wanted |= dict.fromkeys(name for name in graph.outputs)
    folded = [n for n in wanted if n not in graph.changing and n not in stored]
    if any(node.op in DATA_SIZED for node in graph.live):
        _stand_ins(proto)
    del proto.graph.output[:]
    for name in measured:
        proto.graph.node.append(onnx.helper.make_node("Shape", [name], [_SHAPE + name]))
        proto.graph.output.append(
            onnx.helper.make_tensor_value_info(_SHAPE + name, onnx.TensorProto.INT64, None)
        )
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in folded)
    return proto, measured, folded


def _stand_ins(proto: Any) -> None:
    """Let zeros, as many as an input says, stand for what is as long as the values decide."""
    onnx = require("onnx", "onnx", "to import .onnx files")
    helper, nodes = onnx.helper, []
    proto.graph.input.append(helper.make_tensor_value_info(_LENGTH, onnx.TensorProto.INT64, [1]))
    for name, value in (("zero", [0]), ("three", [3])):
        tensor = onnx.numpy_helper.from_array(np.array(value), f"{_LENGTH}/{name}")
        proto.graph.initializer.append(tensor)
    for number, node in enumerate(proto.graph.node):
        if node.op_type not in DATA_SIZED or node.domain:
            nodes.append(node)
            continue
        sizes = f"{_LENGTH}/{number}"
        if node.op_type == "NonZero":
            nodes.append(helper.make_node("Shape", [node.input[0]], [f"{sizes}/shape"]))
            nodes.append(helper.make_node("Shape", [f"{sizes}/shape"], [f"{sizes}/rank"]))
            parts = [f"{sizes}/rank", _LENGTH]
        else:
            parts = [_LENGTH, f"{_LENGTH}/three"]
        nodes.append(helper.make_node("Concat", parts, [sizes], axis=0))
        nodes.append(helper.make_node("Expand", [f"{_LENGTH}/zero", sizes], [node.output[0]]))
    assign(proto.graph.node, nodes)


def _assignments(
    inputs: Sequence[GraphInput], given: Sequence[Array] | None, *, pinned: bool
) -> Iterator[tuple[tuple[Sizes, ...], ...]]:
    """Sets of input sizes to try: for each, one or two shapes per input."""
    symbols: dict[str, bool] = {}
    keys: list[tuple[int | str, ...]] = []
    for info in inputs:
        key = tuple(
            size if isinstance(size, int) else size or f"{info.name}/{axis}"
            for axis, size in enumerate(info.shape)
        )
        keys.append(key)
        for axis, size in enumerate(key):
            if isinstance(size, str):
                symbols[size] = symbols.get(size, False) or axis == 0
    if not symbols:
        yield (tuple(tuple(int(size) for size in key) for key in keys),)
        return
    known: dict[str, int] = {}
    for key, array in zip(keys, given or (), strict=False):
        known |= {s: n for s, n in zip(key, array.shape, strict=False) if isinstance(s, str)}

    def sizes(choice: Mapping[str, int]) -> tuple[Sizes, ...]:
        return tuple(
            tuple(choice[size] if isinstance(size, str) else size for size in key) for key in keys
        )

    others = [name for name, batch in symbols.items() if not batch]
    batches = [name for name, batch in symbols.items() if batch]
    if known and others:
        first = {name: known.get(name, 32) for name in others}
        if not pinned:
            yield tuple(
                sizes({n: k * first[n] for n in others} | dict.fromkeys(batches, 1 + k))
                for k in (1, 2)
            )
        for batch in ((2, 3), (1, 1)):
            yield tuple(sizes(first | dict.fromkeys(batches, n)) for n in batch)
        return
    for square in (False, True):
        for unit in _UNITS if others else (1,):
            choices = []
            for k in range(2):
                choice = {n: unit * (2 + k + (0 if square else i)) for i, n in enumerate(others)}
                choices.append(sizes(choice | dict.fromkeys(batches, 2 + k)))
            yield tuple(choices)
    # A batch that is called free, and is not.
    yield tuple(
        sizes(dict.fromkeys(others, 64 * (1 + k)) | dict.fromkeys(batches, 1)) for k in range(2)
    )
