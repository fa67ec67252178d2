"""Operators that repeat elements, or trade axes for one another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dsconvert.base.predictor import Array

from ..builder import KerasBuilder, refuse
from ..graph import Node
from ..layout import identity
from ..registry import op
from ..values import Constant, Sizes, Tensor


@op("Expand")
def expand(node: Node, build: KerasBuilder) -> Tensor:
    """Repeats axes of size 1, and adds axes in front."""
    x = build.tensor(node)
    shapes = build.output_shapes(node)
    missing = len(shapes[0]) - x.rank
    if missing:
        whole = build.onnx_order(x)
        larger = tuple((1,) * missing + sizes for sizes in x.shapes)
        tensor = build.reshape(whole.keras, x.shapes, larger, f"{node.name}_axes")
        x = Tensor(f"{x.name}/{len(shapes[0])}", tensor, identity(len(shapes[0])), larger)
    return _repeated(node, build, x, shapes)


@op("Tile")
def tile(node: Node, build: KerasBuilder) -> Tensor:
    """Repeats along every axis."""
    return _repeated(node, build, build.tensor(node), build.output_shapes(node))


def _repeated(node: Node, build: KerasBuilder, x: Tensor, shapes: tuple[Sizes, ...]) -> Tensor:
    free = [axis for axis in range(1, x.rank) if x.spreads(axis, shapes)]
    x = (build.spread(node, x, free, shapes) if free else None) or x
    counts = []
    for axis in x.order:
        times = {
            new[axis] // old[axis] if old[axis] else 1
            for old, new in zip(x.shapes, shapes, strict=True)
        }
        if len(times) > 1:
            raise refuse(
                node,
                f"how often it repeats axis {axis} depends on the free sizes of the inputs",
                "Fix the sizes of the model's inputs before importing.",
            )
        counts.append(times.pop())
    tensor = x.keras
    if any(count != 1 for count in counts):
        tensor = build.apply(node, "tile", tensor, counts)
    return build.result(node, tensor, x.order)


@op("ReverseSequence")
def reverse_sequence(node: Node, build: KerasBuilder) -> Tensor:
    """The first steps of each sample, as many as it has, in the other direction."""
    x = build.tensor(node)
    batch, time = node.get("batch_axis", 1), node.get("time_axis", 0)
    lengths = build.value(node, 1)
    if isinstance(lengths, Constant):
        pairs = zip(_each(lengths.probes, x.shapes), x.shapes, strict=True)
        if all((np.asarray(length) == shape[time]).all() for length, shape in pairs):
            return build.result(
                node, build.apply(node, "flip", x.keras, axis=x.axis(time)), x.order
            )
    steps = x.shape[time]
    if steps is None:
        raise refuse(node, "a part of a sequence of free length is turned round")
    order = (batch, time, *(axis for axis in range(x.rank) if axis not in (batch, time)))
    x = build.reorder(x, order)
    if isinstance(lengths, Constant):
        many = lengths.value.astype(np.int32)[:, None]
    else:
        many = build.apply(node, "cast", lengths.keras, "int32")
        many = build.apply(node, "expand_dims", many, -1)
    numbers = np.arange(steps, dtype=np.int32)
    if isinstance(many, np.ndarray):
        index = np.where(numbers < many, many - 1 - numbers, numbers)
        index = index.reshape(*index.shape, *[1] * (x.rank - 2))
    else:
        turned = build.apply(node, "subtract", many, numbers + 1)
        inside = build.apply(node, "greater", many, numbers)
        index = build.apply(node, "where", inside, turned, numbers)
        index = build.apply(node, "reshape", index, (-1, steps, *[1] * (x.rank - 2)))
    return build.result(node, build.apply(node, "take_along_axis", x.keras, index, axis=1), order)


def _each(values: Sequence[Array], probes: Sequence[Sizes]) -> Sequence[Array]:
    """Return a constant once for each probe."""
    return [*values] * (len(probes) // len(values))


@op("DepthToSpace")
def depth_to_space(node: Node, build: KerasBuilder) -> Tensor:
    """Channels become blocks of pixels; in the mode CRD each channel's block stands together."""
    x = build.channels_last(build.tensor(node))
    block = node.attributes["blocksize"]
    tensor = x.keras
    channels = x.shape[1]
    if channels is None:
        raise refuse(node, "its input has a free number of channels")
    if node.get("mode", "DCR") == "CRD" and channels != block * block:
        taken = np.arange(channels).reshape(-1, block * block).T.ravel().astype(np.int32)
        tensor = build.apply(node, "take", tensor, taken, axis=-1)
    tensor = build.apply(
        node, "depth_to_space", tensor, block_size=block, data_format="channels_last"
    )
    return build.result(node, tensor, x.order)


@op("SpaceToDepth")
def space_to_depth(node: Node, build: KerasBuilder) -> Tensor:
    """Blocks of pixels become channels."""
    x = build.channels_last(build.tensor(node))
    block = node.attributes["blocksize"]
    tensor = build.apply(
        node, "space_to_depth", x.keras, block_size=block, data_format="channels_last"
    )
    if node.get("mode", "DCR") == "CRD":
        channels = tensor.shape[-1]
        taken = np.arange(channels).reshape(block * block, -1).T.ravel().astype(np.int32)
        tensor = build.apply(node, "take", tensor, taken, axis=-1)
    return build.result(node, tensor, x.order)


@op("Trilu")
def triangle(node: Node, build: KerasBuilder) -> Tensor:
    """Return the upper or lower triangle of the last two axes."""
    x = build.onnx_order(build.tensor(node))
    diagonal = int(build.constant(node, 1, np.zeros(())).ravel()[0])
    rows, columns = x.shape[-2:]
    if rows is None or columns is None:
        raise refuse(node, "a triangle of a free size")
    diagonal = min(max(diagonal, -rows), columns)  # TensorFlow refuses one that lies outside
    function = "triu" if node.get("upper", 1) else "tril"
    return build.result(node, build.apply(node, function, x.keras, k=diagonal), x.order)


@op("Einsum")
def einsum(node: Node, build: KerasBuilder) -> Tensor:
    """Return a sum of products, its letters in the order in which the operands are stored."""
    equation = node.attributes["equation"].replace(" ", "")
    terms, _, output = equation.partition("->")
    operands, letters = [], []
    values = [build.value(node, index) for index in range(len(node.inputs))]
    for term, value in zip(terms.split(","), values, strict=True):
        if not isinstance(value, Tensor):
            operands.append(value.value)
        elif "." in term:
            operands.append(build.onnx_order(value).keras)
        else:
            operands.append(value.keras)
            term = "".join(term[axis] for axis in value.order)
        letters.append(term)
    if "->" not in equation:
        counts = {letter: terms.count(letter) for letter in terms if letter.isalpha()}
        output = "..." * ("..." in terms) + "".join(
            sorted(letter for letter, count in counts.items() if count == 1)
        )
    tensor = build.apply(node, "einsum", f"{','.join(letters)}->{output}", *operands)
    return build.result(node, tensor, identity(len(build.output_shapes(node)[0])))
