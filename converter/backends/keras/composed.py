"""A rewritten Keras model computed with one dense convolution in the place of each block.

Training through Ŵ, the kernel that a block stands for, gives its factors the same gradients as
training the block, at the cost of the convolution. A depthwise convolution takes longer backwards
than the convolution it stands for.

The layers are those of the model: what changes their weights changes the model.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from .features import features
from .graph import FlatGraph, flatten, keras_module
from .read import is_depthwise, is_pointwise

_WIDE = 64 * 64
"""Products of input and output channels from which bfloat16 was measured to be faster."""
_SUMS = ("Add",)
"""Layers and operations that add."""


@dataclass
class _Block:
    """What stands for one convolution: a sum of chains of 1×1 and depthwise layers.

    Attributes:
        reads: The value number of its input.
        chains: The layers of each branch.
        steps: The steps that it takes the place of; the last one makes its output.
    """

    reads: int
    chains: list[list[Any]] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)

    @property
    def deep(self) -> Any:
        """The depthwise layer of its first branch; None while it has none."""
        return next((layer for layer in self.chains[0] if is_depthwise(layer)), None)

    @property
    def open(self) -> bool:
        """Tell whether its output may go on into another layer of the block."""
        layers = [layer for chain in self.chains for layer in chain]
        return all(layer.activation is keras_module().activations.linear for layer in layers)

    def with_layer(self, layer: Any, step: int) -> _Block | None:
        """Return the block with one more layer behind its only chain; None if that is no block."""
        if len(self.chains) > 1 or not self.open or any(x.use_bias for x in self.chains[0]):
            return None
        kinds = "".join("d" if is_depthwise(x) else "p" for x in (*self.chains[0], layer))
        if kinds not in ("dp", "pd", "pdp"):
            return None
        return _Block(self.reads, [[*self.chains[0], layer]], [*self.steps, step])

    def plus(self, other: _Block) -> bool:
        """Tell whether the two can be summed: the same input, and the same geometry."""
        return (
            self.reads == other.reads
            and self.open
            and other.open
            and self.deep is not None
            and other.deep is not None
            and _geometry(self.deep) == _geometry(other.deep)
        )

    def run(self, image: Any, half: bool) -> Any:
        """Compute its output from its input."""
        ops, deep = keras_module().ops, self.deep
        made = _convolve(image, sum(_kernel(chain) for chain in self.chains), deep, half)
        for chain in self.chains:
            if chain[-1].use_bias:
                shape = (1, -1, 1, 1) if deep.data_format == "channels_first" else (1, 1, 1, -1)
                made = made + ops.reshape(chain[-1].bias, shape)
        return self.chains[-1][-1].activation(made)


class ComposedModel:
    """A model that is run with its blocks as dense convolutions, and without dropout.

    Args:
        model: A functional or Sequential model.
        original: The model it was made from, whose layers are no parts of blocks; the model itself
            to run it as it is.
        student: What was made from the original. Where the model is the original itself, its
            features are those that the student has, too.
        half: Compute wide convolutions in bfloat16.
        batch_norms: Let norms follow the batch, as they do while Keras trains.

    Attributes:
        frozen: The layers that read a picture, and the norms that directly follow them.
    """

    def __init__(
        self,
        model: Any,
        original: Any,
        *,
        student: Any = None,
        half: bool = False,
        batch_norms: bool = False,
    ) -> None:
        self.model, self.half, self.batch_norms = model, half, batch_norms
        self.graph = flatten(model)
        given = flatten(original)
        known = {} if model is original else _shapes(given)
        new = {
            id(step.operation)
            for step in self.graph.steps
            if known and known.get(self.graph.name_of(step.operation)) != _shape(step.operation)
        }
        found = _blocks(self.graph, new)
        self._blocks = {block.steps[-1]: block for block in found}
        self._gone = {step for block in found for step in block.steps[:-1]}
        if new or student is None:
            self._features = [ours for _, ours in features(given, self.graph)]
        else:  # the original, or a part of it
            self._features = [ours for ours, _ in features(self.graph, flatten(student))]
        self.frozen = _stems(self.graph)

    @property
    def states(self) -> tuple[()]:
        """It has no variables but the model's."""
        return ()

    def calibrate(self) -> None:
        """Do nothing."""

    @property
    def blocks(self) -> int:
        """Tell how many convolutions' places are run as dense convolutions."""
        return len(self._blocks)

    @property
    def variables(self) -> list[Any]:
        """Everything that may be trained: no stems, and no moving statistics."""
        layers = {id(step.operation): step.operation for step in self.graph.steps}
        frozen = set(map(id, self.frozen))
        weights = [
            weight
            for key, layer in layers.items()
            if key not in frozen
            for weight in getattr(layer, "trainable_weights", ())
        ]
        return list({id(weight): weight for weight in weights}.values())

    def run(self, inputs: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """Compute the outputs and the features.

        Args:
            inputs: One tensor per input, (n, ...).
        """
        values = dict(zip(self.graph.inputs, inputs, strict=True))
        for number, step in enumerate(self.graph.steps):
            if number in self._gone:
                continue
            if number in self._blocks:
                block = self._blocks[number]
                values[step.writes[0]] = block.run(values[block.reads], self.half)
            elif self.half and _is_wide(step.operation):
                (reads,) = step.reads.values()
                values[step.writes[0]] = _plain(step.operation, values[reads])
            elif self.batch_norms and _is_norm(step.operation):
                (reads,) = step.reads.values()
                values[step.writes[0]] = step.operation(values[reads], training=True)
            else:
                step.run(values)
        outputs = [values[number] for number in self.graph.outputs]
        return outputs, [values[number] for number in self._features]


def _blocks(graph: FlatGraph, new: Collection[int]) -> list[_Block]:
    """Find the blocks, of two layers or more, among the new operations."""
    readers: dict[int, list[int]] = {}
    for number, step in enumerate(graph.steps):
        for value in step.reads.values():
            readers.setdefault(value, []).append(number)
    made: dict[int, _Block] = {}

    def alone(value: int) -> _Block | None:
        """Return the block that makes a value which nothing else reads."""
        single = len(readers.get(value, ())) == 1 and value not in graph.outputs
        return made.get(value) if single else None

    for number, step in enumerate(graph.steps):
        if id(step.operation) not in new:
            continue
        reads, operation = [*step.reads.values()], step.operation
        if is_depthwise(operation) or is_pointwise(operation):
            before = alone(reads[0])
            longer = None if before is None else before.with_layer(operation, number)
            if longer is not None:
                del made[reads[0]]
            made[step.writes[0]] = longer or _Block(reads[0], [[operation]], [number])
        elif type(operation).__name__ in _SUMS:
            parts = [alone(value) for value in reads]
            first, others = (parts or [None])[0], parts[1:]
            if first is None or not others:
                continue
            if all(other is not None and first.plus(other) for other in others):
                summed = _Block(first.reads)
                for value in reads:
                    part = made.pop(value)
                    summed.chains += part.chains
                    summed.steps += part.steps
                summed.steps.append(number)
                made[step.writes[0]] = summed
    return [block for block in made.values() if len(block.steps) > 1 and block.deep is not None]


def _is_norm(operation: Any) -> bool:
    return type(operation) is keras_module().layers.BatchNormalization


def _is_wide(operation: Any) -> bool:
    """Tell whether a layer is a stock dense convolution that gains by bfloat16."""
    plain = type(operation) is keras_module().layers.Conv2D and operation.groups == 1
    return plain and not is_pointwise(operation) and _gains(operation.kernel)


def _gains(kernel: Any) -> bool:
    return int(kernel.shape[2]) * int(kernel.shape[3]) >= _WIDE


def _plain(layer: Any, image: Any) -> Any:
    """Return a dense convolution's output, its product in bfloat16."""
    made = _convolve(image, layer.kernel, layer, half=True)
    if layer.use_bias:
        shape = (1, -1, 1, 1) if layer.data_format == "channels_first" else (1, 1, 1, -1)
        made = made + keras_module().ops.reshape(layer.bias, shape)
    return layer.activation(made)


def _convolve(image: Any, kernel: Any, like: Any, half: bool) -> Any:
    """Convolve an image, (n, H, W, C) or (n, C, H, W), by a kernel with a layer's geometry."""
    ops = keras_module().ops
    half = half and _gains(kernel)
    made = ops.conv(
        ops.cast(image, "bfloat16") if half else image,
        ops.cast(kernel, "bfloat16") if half else kernel,
        strides=like.strides,
        padding=like.padding,
        data_format=like.data_format,
        dilation_rate=like.dilation_rate,
    )
    return ops.cast(made, "float32") if half else made


def _geometry(deep: Any) -> tuple[Any, ...]:
    return deep.kernel_size, deep.strides, deep.padding, deep.dilation_rate, deep.data_format


def _kernel(chain: Sequence[Any]) -> Any:
    """Ŵ (kh, kw, C, N) of one chain, as a tensor."""
    ops = keras_module().ops
    place = next(place for place, layer in enumerate(chain) if is_depthwise(layer))
    deep = ops.convert_to_tensor(chain[place].kernel)
    kh, kw, G, m = deep.shape
    if place:
        first = chain[0].kernel[0, 0]  # (C, G)
        spread = deep[:, :, None] * first[None, None, :, :, None]  # (kh, kw, C, G, m)
        if place + 1 == len(chain):
            return ops.reshape(spread, (kh, kw, -1, G * m))
        flat = ops.reshape(spread, (-1, G * m))
        return ops.reshape(ops.matmul(flat, chain[-1].kernel[0, 0]), (kh, kw, first.shape[0], -1))
    last = ops.reshape(chain[-1].kernel, (G, m, -1))
    if m == 1:
        return deep * last[:, 0]
    return ops.einsum("abgm,gmn->abgn", deep, last)


def _shape(operation: Any) -> list[tuple[int, ...]] | None:
    """Return the shapes of a layer's weights; None of an operation."""
    weights = getattr(operation, "weights", None)
    return None if weights is None else [tuple(weight.shape) for weight in weights]


def _shapes(graph: FlatGraph) -> dict[str, list[tuple[int, ...]] | None]:
    return {graph.name_of(step.operation): _shape(step.operation) for step in graph.steps}


def _stems(graph: FlatGraph) -> list[Any]:
    """Return the convolutions that read an input of the model, and their norms."""
    keras = keras_module()
    kinds = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
    found: list[Any] = []
    made: set[int] = set()
    passed = set(graph.inputs)  # inputs, also behind layers without weights, as paddings
    for step in graph.steps:
        operation, reads = step.operation, set(step.reads.values())
        norm = isinstance(operation, keras.layers.BatchNormalization)
        if isinstance(operation, kinds) and reads <= passed:
            found.append(operation)
            made.update(step.writes)
        elif norm and reads <= made:
            found.append(operation)
        elif reads <= passed and not getattr(operation, "weights", ()):
            passed.update(step.writes)
    return found
