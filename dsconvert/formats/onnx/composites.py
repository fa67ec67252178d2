"""Operators of ONNX that are sums and products of others: spelled out in those.

Signals (STFT, DFT) are products with constant sines, a deformable convolution is a 1×1 convolution
for each of its taps, and Col2Im a transposed convolution that moves values to their places. A bias
that is computed is added behind its convolution.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from dsconvert.base.predictor import Array, Shape

from .constants import constant_of
from .graph import OnnxGraph, attributes, is_op
from .masks import FAR, MaskedScores, chosen_by, kept_by
from .node_writer import NodeWriter, rewritten
from .tensors import DOMAINS

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

_GRID_SAMPLE = 16
"""The opset from which on there is GridSample."""
_MOST = 20_000_000
"""Values that a constant may have that stands for an operator."""
_LAST_AXIS = 13
"""The opset from which on a softmax is over one axis."""
_AXES_GIVEN = 18
"""The opset from which on the axes of the largest value are an input."""
_TAPS = 256
"""That a deformable convolution may have."""


def composed(model: ModelProto) -> ModelProto:
    """Spell out operators of the main graph whose sizes are known.

    Args:
        model: The model, its weights in memory; it is not changed.

    Returns:
        A new model; the given one where nothing is to be done.
    """
    graph = OnnxGraph(model)
    return rewritten(model, _speller_of, lambda node, taken: _Composer(node, taken, graph))


def _speller_of(node: NodeProto) -> Callable[[_Composer], str | None] | None:
    return _SPELLED.get(node.op_type) if node.domain in DOMAINS else None


class _Composer(NodeWriter):
    """Writes nodes in place of one, by the shapes and constants of the graph that it is in."""

    def __init__(self, node: NodeProto, taken: set[str], graph: OnnxGraph) -> None:
        super().__init__(node, taken)
        self.graph = graph

    def input(self, place: int) -> str:
        """Return the name of an input; empty for one that is left out."""
        return self.node.input[place] if len(self.node.input) > place else ""

    def value(self, place: int) -> Array | None:
        """Return a constant input."""
        name = self.input(place)
        return constant_of(self.graph, name) if name else None

    def shape(self, place: int) -> Shape | None:
        """Return an input's shape as far as it is known."""
        return self.graph.shapes.get(self.input(place))

    def floats(self, value: Any) -> str:
        """Return the name of a float32 constant."""
        return self.constant(value, np.float32)

    def sizes(self, *values: int) -> str:
        """Return the name of a constant of whole numbers."""
        return self.constant(values, np.int64)

    def reduced(self, kind: str, x: str) -> str:
        """Add a reduction over the last axis, which stays."""
        if self.graph.opset < _AXES_GIVEN:
            return self.make(kind, x, axes=[-1], keepdims=1)
        return self.make(kind, x, self.sizes(-1), keepdims=1)

    def moved(self, choice: MaskedScores) -> str:
        """Add what tells which scores are kept, in the form that their mask has."""
        kept = choice.condition if choice.kept else self.make("Not", choice.condition)
        for node in choice.moved:
            if not is_op(node, "Cast", "Identity"):
                kept = self.make(node.op_type, kept, *node.input[1:], **attributes(node))
        return kept

    def part(self, x: str, axis: int, start: int, stop: int) -> str:
        """Add a slice along one axis."""
        return self.make("Slice", x, *(self.sizes(n) for n in (start, stop, axis)))


def _waves(count: int, length: int, size: int) -> tuple[Array, Array]:
    """Return cosines and sines, (count, length), of a transform over so many values."""
    turns = np.outer(np.arange(count), np.arange(length)) % size * (2 * np.pi / size)
    return np.cos(turns), np.sin(turns)


def _stft(to: _Composer) -> str | None:
    """A convolution by windowed cosines and sines with the frame's step as its stride."""
    shape, step, window, length = to.shape(0), to.value(1), to.value(2), to.value(3)
    if shape is None or len(shape) not in (2, 3) or step is None:
        return None
    if len(shape) == 3 and shape[2] != 1:
        return None  # complex
    if (to.input(2) and window is None) or (window is None and length is None):
        return None
    size = int(length) if length is not None else len(window)  # type: ignore[arg-type]
    count = size // 2 + 1 if to.given.get("onesided", 1) else size
    if count * size > _MOST:
        return None
    cos, sin = _waves(count, size, size)
    kernel = np.concatenate([cos, -sin]) * (1.0 if window is None else np.ravel(window))
    signal = to.make("Reshape", to.input(0), to.sizes(0, 1, -1))
    weight = to.floats(kernel[:, None])
    both = to.make("Conv", signal, weight, strides=[int(step)])  # (n, 2·count, frames)
    apart = to.make("Reshape", both, to.sizes(0, 2, count, -1))
    return to.make("Transpose", apart, perm=[0, 3, 2, 1])


def _dft(to: _Composer) -> str | None:
    """Products with cosines and sines, over one axis of (…, n, 1 or 2)."""
    shape, length = to.shape(0), to.value(1)
    axis = to.value(2) if to.input(2) else to.given.get("axis", 1 if to.graph.opset < 20 else -2)
    if shape is None or axis is None or (to.input(1) and length is None):
        return None
    rank, inverse = len(shape), bool(to.given.get("inverse"))
    onesided, place = bool(to.given.get("onesided")), int(axis) % len(shape)
    held, parts = shape[place], shape[-1]
    if held is None or parts not in (1, 2) or place == rank - 1 or (onesided and inverse):
        return None
    size = held if length is None else int(length)
    count, used = size // 2 + 1 if onesided else size, min(size, held)
    if count * used > _MOST:
        return None
    cos, sin = _waves(count, used, size)
    if inverse:
        cos, sin = cos / size, -sin / size
    perm = [k for k in range(rank - 1) if k != place] + [place]  # the axis last
    back = [perm.index(k) for k in range(rank - 1)]
    x = to.part(to.input(0), place, 0, used) if used < held else to.input(0)
    each = [
        to.make("Transpose", to.make("Squeeze", to.part(x, rank - 1, k, k + 1), to.sizes(rank - 1)),
                perm=perm)
        for k in range(parts)
    ]  # fmt: skip
    by_cos, by_sin = to.floats(cos.T), to.floats(sin.T)
    real = to.make("MatMul", each[0], by_cos)
    imaginary = to.make("Neg", to.make("MatMul", each[0], by_sin))
    if parts == 2:
        real = to.make("Add", real, to.make("MatMul", each[1], by_sin))
        imaginary = to.make("Add", imaginary, to.make("MatMul", each[1], by_cos))
    turned = [
        to.make("Unsqueeze", to.make("Transpose", one, perm=back), to.sizes(rank - 1))
        for one in (real, imaginary)
    ]
    return to.make("Concat", *turned, axis=rank - 1)


def _col2im(to: _Composer) -> str | None:
    """A transposed convolution of each channel by kernels of a single 1."""
    shape, image, block = to.shape(0), to.value(1), to.value(2)
    if shape is None or image is None or block is None or shape[1] is None or len(block) != 2:
        return None
    taps = int(np.prod(block))
    if len(shape) != 3 or len(image) != 2 or shape[1] * taps > _MOST:
        return None
    dilations = [int(n) for n in to.given.get("dilations") or [1, 1]]
    strides = [int(n) for n in to.given.get("strides") or [1, 1]]
    pads = [int(n) for n in to.given.get("pads") or [0] * 4]
    windows = [(int(b) - 1) * d + 1 for b, d in zip(block, dilations, strict=True)]
    padded = [int(image[k]) + pads[k] + pads[k + 2] for k in range(2)]
    places = [(padded[k] - windows[k]) // strides[k] + 1 for k in range(2)]
    left = [(padded[k] - windows[k]) % strides[k] for k in range(2)]
    channels = shape[1] // taps
    kernel = np.tile(np.eye(taps).reshape(taps, 1, *block), (channels, 1, 1, 1))
    columns = to.make("Reshape", to.input(0), to.sizes(0, shape[1], *places))
    return to.make(
        "ConvTranspose", columns, to.floats(kernel), group=channels, strides=strides,
        dilations=dilations, pads=pads, output_padding=left,
    )  # fmt: skip


def _deform(to: _Composer) -> str | None:
    """For each tap the image at moved places, by GridSample, and a 1×1 convolution of it."""
    image, offsets, kernel = to.shape(0), to.shape(2), to.value(1)
    if to.graph.opset < _GRID_SAMPLE or image is None or offsets is None or kernel is None:
        return None
    known = (*image[1:], *offsets[1:])
    if len(image) != 4 or len(offsets) != 4:
        return None
    if kernel.ndim != 4 or None in known or min(image[2] or 0, image[3] or 0) < 2:
        return None
    channels, height, width, both, rows, columns = (int(n or 0) for n in known)
    taps = list(product(range(kernel.shape[2]), range(kernel.shape[3])))
    groups, count = int(to.given.get("offset_group", 1)), len(taps)
    if count * groups > _TAPS or both != 2 * count * groups:
        return None
    strides = to.given.get("strides") or [1, 1]
    dilations = to.given.get("dilations") or [1, 1]
    pads = to.given.get("pads") or [0] * 4
    size = [np.arange(n) * s - p for n, s, p in zip((rows, columns), strides, pads, strict=False)]
    each = channels // groups
    total = ""
    for tap, (i, j) in enumerate(taps):
        parts = []
        for group in range(groups):
            place = group * count + tap
            start = np.stack(np.meshgrid(size[0] + i * dilations[0], size[1] + j * dilations[1],
                                         indexing="ij"))  # fmt: skip
            moved = to.part(to.input(2), 1, 2 * place, 2 * place + 2)
            moved = to.make("Add", moved, to.floats(start[None]))
            scale = np.array([2 / (height - 1), 2 / (width - 1)]).reshape(1, 2, 1, 1)
            grid = to.make("Mul", moved, to.floats(scale))
            grid = to.make("Sub", grid, to.floats(np.float32(1)))
            y, x = (to.part(grid, 1, k, k + 1) for k in range(2))
            grid = to.make("Transpose", to.make("Concat", x, y, axis=1), perm=[0, 2, 3, 1])
            source = to.input(0)
            if groups > 1:
                source = to.part(source, 1, group * each, (group + 1) * each)
            found = to.make("GridSample", source, grid, align_corners=1)
            if to.input(4):
                found = to.make("Mul", found, to.part(to.input(4), 1, place, place + 1))
            parts.append(found)
        joined = to.make("Concat", *parts, axis=1) if groups > 1 else parts[0]
        weight = to.floats(kernel[:, :, i : i + 1, j : j + 1])
        made = to.make("Conv", joined, weight, group=int(to.given.get("group", 1)))
        total = to.make("Add", total, made) if total else made
    if not to.input(3):
        return total
    bias = to.value(3)
    return None if bias is None else to.make("Add", total, to.floats(bias.reshape(-1, 1, 1)))


def _compress(to: _Composer) -> str | None:
    """A Gather at the places of a constant condition."""
    condition, axis = to.value(1), to.given.get("axis")
    if condition is None:
        return None
    x = to.input(0) if axis is not None else to.make("Reshape", to.input(0), to.sizes(-1))
    return to.make("Gather", x, to.sizes(*np.flatnonzero(condition)), axis=axis or 0)


def _masked_softmax(to: _Composer) -> str | None:
    """A softmax of scores, where what is masked stands a little below the rest and not far.

    int8 has one scale for both. Masks that the graph computes stay as they are, but for choices.
    """
    name, casts = to.input(0), []
    while (cast := to.graph.makers.get(name)) is not None and is_op(cast, "Cast", "Identity"):
        name = cast.input[0]
        casts.append(cast)
    found = kept_by(to.graph, name)
    shape = to.shape(0)
    axis = int(to.given.get("axis", -1 if to.graph.opset >= _LAST_AXIS else 1))
    last = axis == -1 or (shape is not None and axis % len(shape) == len(shape) - 1)
    choice = chosen_by(to.graph, name) if found is None else None
    if not last or to.graph.opset < _LAST_AXIS:
        return None
    rest: Array | None = None
    if found is not None:
        scores, mask, rest = found
        if not mask.ndim or not mask.any(axis=-1).all():
            return None  # a row of which nothing is kept
        kept = to.constant(mask, bool)
    elif choice is not None:
        scores, kept = choice.scores, to.moved(choice)
    else:
        return None
    for cast in reversed(casts):
        scores = to.make(cast.op_type, scores, **attributes(cast))
    if rest is not None:
        scores = to.make("Add", scores, to.floats(rest))
    least = to.reduced("ReduceMin", scores)
    largest = to.reduced("ReduceMax", to.make("Where", kept, scores, least))
    below = to.make("Where", kept, to.make("Sub", scores, largest), to.floats(FAR))
    return to.make("Softmax", below, axis=-1)


def _affine_grid(to: _Composer) -> str | None:
    """A product of constant places with the matrices of the samples."""
    size = to.value(1)
    if size is None or int(np.prod(size[2:])) * len(size) > _MOST:
        return None
    aligned = bool(to.given.get("align_corners", 0))
    axes = [np.linspace(-1, 1, n) if aligned else (2 * np.arange(n) + 1) / n - 1 for n in size[2:]]
    places = np.stack(np.meshgrid(*axes, indexing="ij")[::-1], axis=-1)  # x first
    ones = np.ones((*places.shape[:-1], 1))
    rows = np.concatenate([places, ones], axis=-1).reshape(-1, len(size) - 1)
    turned = to.make("Transpose", to.input(0), perm=[0, 2, 1])
    moved = to.make("MatMul", to.floats(rows), turned)
    return to.make("Reshape", moved, to.sizes(0, *size[2:], len(size) - 2))


def _shrink(to: _Composer) -> str | None:
    """Values of less than a limit are 0, the others are moved towards it."""
    x, limit, bias = to.input(0), to.given.get("lambd", 0.5), to.given.get("bias", 0.0)
    above = to.make("Sub", x, to.floats(bias))
    below = to.make("Add", x, to.floats(bias))
    rest = to.make("Where", to.make("Greater", x, to.floats(limit)), above, to.floats(0.0))
    return to.make("Where", to.make("Less", x, to.floats(-limit)), below, rest)


def _biased(to: _Composer) -> str | None:
    """A convolution without its bias, which is computed, and a sum."""
    kernel = to.shape(1)
    if not to.input(2) or to.input(2) in to.graph.fixed or kernel is None:
        return None
    made = to.make(to.node.op_type, to.input(0), to.input(1), **to.given)
    return to.make(
        "Add", made, to.make("Reshape", to.input(2), to.sizes(-1, *[1] * (len(kernel) - 2)))
    )


_SPELLED: dict[str, Callable[[_Composer], str | None]] = {
    "STFT": _stft,
    "DFT": _dft,
    "Col2Im": _col2im,
    "DeformConv": _deform,
    "Compress": _compress,
    "Shrink": _shrink,
    "Softmax": _masked_softmax,
    "AffineGrid": _affine_grid,
    "Conv": _biased,
    "ConvTranspose": _biased,
}
