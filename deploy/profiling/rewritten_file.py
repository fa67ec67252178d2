"""What a .tflite file would need if other blocks stood in place of its convolutions.

Nothing is converted for that. The operators of each block are put in place of the convolution's as
the converter writes them: branch after branch, each sum as soon as its terms are there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dsconvert.base.errors import InputError
from dsconvert.converter.core.fitting.patches import output_size
from dsconvert.converter.core.fitting.styles import block_style
from dsconvert.converter.core.types import Choice, ConvSpec, Depthwise, NormActivation

from .tflm_arena import Buffer, Operator, TensorFile, lives, needed, plan

_SCALE = 12
"""Bytes of a scale and of its zero point."""
_BIAS = 4
"""Bytes of a bias, in int8 files too."""
_AROUND = 1400
"""Bytes of a file besides its tensors: 1,200 to 1,700 in files of ResNet8. With it the predicted
sizes of rewritten files were within 2 % of what the converter wrote, in float and in int8."""


class _Part(NamedTuple):
    """A convolution or a sum of a block.

    Attributes:
        weights: How many; 0 of a sum.
        channels: Of its output.
        strided: Whether its output has the convolution's size; the input's otherwise.
        outputs_of: The parts that it reads; −1 is the convolution's input.
    """

    weights: int
    channels: int
    strided: bool
    outputs_of: tuple[int, ...]


class RewrittenFile:
    """A file and its convolutions, by the names of their layers.

    Args:
        path: The .tflite file of the network as it is.
        specs: Its convolutions in the order of the network. The file's are told apart by their
            shapes; of equal ones the order counts.

    Raises:
        InputError: If the file cannot be read; see `tflm_arena.arena_of`. Later, if a layer that is
            replaced is not to be found in it.

    Attributes:
        flash: Bytes of the file.
        arena: Bytes of its activations.
    """

    def __init__(self, path: Path, specs: Sequence[ConvSpec]) -> None:
        self._file = TensorFile(path)
        self.flash = path.stat().st_size
        self._computed = set(self._file.activations)
        self._specs = {spec.name: spec for spec in specs}
        self._layers = self._found(specs)
        """The layer of each operator that is one."""
        around = self.flash - self._file.weights() - _SCALE * self._file.scales() - _AROUND
        self._overhead: float = max(around, 0) / max(self._file.tensors, 1)
        """What a tensor takes besides its values: its name, its shape, its operator."""
        self.arena = self.arena_with({})

    def arena_with(self, chosen: Mapping[str, Choice]) -> int:
        """Return the bytes of the activations with some layers replaced."""
        buffers, _ = self._buffers(chosen)
        return needed(buffers, plan(buffers))

    def too_large(self, chosen: Mapping[str, Choice], limit: float) -> list[frozenset[str]]:
        """Name the layers that make the arena larger than a limit.

        Where a tensor lies depends on those that are alive with it and were put down before it,
        where these lie on others, and so on. What all of them are is said by the layers at work
        while they are alive: if these stay the same, the tensor lies where it lies.

        Args:
            chosen: What replaces which layers.
            limit: In bytes.

        Returns:
            The layers of each tensor that ends above the limit, the fewest first, without those
            that hold others.
        """
        buffers, spans = self._buffers(chosen)
        offsets = plan(buffers)
        order = sorted(range(len(buffers)), key=lambda i: (-needed([buffers[i]], [0]), -i))
        rank = {i: place for place, i in enumerate(order)}
        found: set[frozenset[str]] = set()
        for i, (buffer, offset) in enumerate(zip(buffers, offsets, strict=True)):
            if needed([buffer], [offset]) <= limit:
                continue
            causes, left = {i}, [i]
            while left:
                j = left.pop()
                new = {
                    k
                    for k in range(len(buffers))
                    if rank[k] < rank[j] and k not in causes and buffers[k].meets(buffers[j])
                }
                causes |= new
                left += new
            found.add(
                frozenset(
                    name
                    for name, first, last in spans
                    if any(buffers[k].first <= last and first <= buffers[k].last for k in causes)
                )
            )
        return sorted(
            (one for one in found if not any(other < one for other in found)),
            key=lambda names: (len(names), sorted(names)),
        )

    def flash_of(self, spec: ConvSpec, choice: Choice | None) -> float:
        """Return the bytes that a layer, or what replaces it, takes in the file."""
        weights = spec.taps * (spec.in_channels // spec.groups) * spec.out_channels
        whole = (_Part(weights, spec.out_channels, True, ()),)
        parts = whole if choice is None else _parts(spec, choice)
        last = max(number for number, part in enumerate(parts) if part.weights)
        each = max(len(spec.input_sizes), 1) * self._overhead
        total = 0.0
        for number, part in enumerate(parts):
            biased = number == last
            total += self._constants(part, biased=biased)
            total += each * self._tensors(part, biased=biased)
        return total

    def _constants(self, part: _Part, *, biased: bool) -> int:
        """Return the bytes of the constants of an operator; all biases of zero are one buffer."""
        if not part.weights:
            return 0
        bias = _BIAS * part.channels if biased else 0
        if self._quantized:
            return part.weights + 2 * _SCALE * part.channels + bias
        return 4 * part.weights + bias

    def _tensors(self, part: _Part, *, biased: bool) -> int:
        """Count the tensors: weights, bias, output; in float a bias of zeros is one for all."""
        return 1 + (1 + (biased or self._quantized) if part.weights else 0)

    @property
    def _quantized(self) -> bool:
        return "INT8" in self._file.kernels()

    def _found(self, specs: Sequence[ConvSpec]) -> dict[int, str]:
        """Return which operator is which layer."""
        waiting: defaultdict[tuple[int, ...], list[str]] = defaultdict(list)
        for spec in specs:
            for size in spec.input_sizes:
                if size is not None and spec.groups == 1:
                    waiting[
                        (
                            *spec.kernel_size,
                            spec.in_channels,
                            spec.out_channels,
                            *output_size(spec, size),
                        )
                    ].append(spec.name)
        found = {}
        for number, op in enumerate(self._file.operators):
            if op.type != "CONV_2D":
                continue
            channels, height, width, inputs = self._file.shape_of(op.inputs[1])
            pixels = self._file.shape_of(op.outputs[0])[1:3]
            names = waiting[(height, width, inputs, channels, *pixels)]
            if names:
                found[number] = names.pop(0)
        return found

    def _buffers(
        self, chosen: Mapping[str, Choice]
    ) -> tuple[list[Buffer], list[tuple[str, int, int]]]:
        """Return the activations, and the first and the last step of each layer."""
        sizes = {i: self._file.size_of(i) for i in self._computed}
        places = {i: (i, 0) for i in self._computed}
        """Of equal tensors the later one comes first: they are put down by where they come."""
        known = list(self._layers.values())
        for layer in chosen:
            if known.count(layer) != len(self._specs[layer].input_sizes):
                raise InputError(
                    f"{layer} was not found in the .tflite file: the arena of plans is unknown.",
                    f"Leave it alone: --exclude {layer}",
                    code="arena-unknown",
                )
        operators: list[Operator] = []
        spans = []
        for number, op in enumerate(self._file.operators):
            name = self._layers.get(number)
            begun = len(operators) + 1
            choice = chosen.get(name) if name is not None else None
            if name is None or choice is None:
                operators.append(op)
            else:
                operators += self._block(op, self._specs[name], choice, sizes, places)
            if name is not None:
                spans.append((name, begun, len(operators)))
        first, last = lives(self._file.inputs, operators, self._file.outputs)
        order = sorted((i for i in sizes if i in first), key=places.__getitem__)
        return [Buffer(sizes[i], first[i], last[i]) for i in order], spans

    def _block(
        self,
        op: Operator,
        spec: ConvSpec,
        choice: Choice,
        sizes: dict[int, int],
        places: dict[int, tuple[int, int]],
    ) -> Iterator[Operator]:
        """Yield the operators of a block, and note its tensors, whose numbers are made up."""
        source, target = op.inputs[0], op.outputs[0]
        _, height, width, channels = self._file.shape_of(target)
        item = self._file.size_of(target) // (height * width * channels)
        before = self._file.shape_of(source)[1:3]
        parts = _parts(spec, choice)
        made: dict[int, int] = {-1: source}
        for number, part in enumerate(parts):
            made[number] = target
            if number < len(parts) - 1:
                made[number] = 1_000_000 * (target + 1) + number
                pixels = height * width if part.strided else before[0] * before[1]
                sizes[made[number]] = pixels * part.channels * item
                places[made[number]] = (target, number - len(parts))
            yield Operator("", tuple(made[n] for n in part.outputs_of), (made[number],))


@cache
def _parts(spec: ConvSpec, choice: Choice) -> tuple[_Part, ...]:
    """Return the operators of a block in the order in which they run."""
    style = block_style(choice.block)
    shape = (*spec.kernel_size, spec.in_channels, spec.out_channels)
    rng = np.random.default_rng(0)
    factors = style.random(np.ones(shape), None, style.written(choice), rng)
    found: list[_Part] = []
    total = -1
    for number, branch in enumerate(factors.branches()):
        at, channels, strided = -1, spec.in_channels, False
        for layer in branch:
            if isinstance(layer, NormActivation):  # goes into the convolution before it
                continue
            if isinstance(layer, Depthwise):
                channels, strided = channels * layer.kernel.shape[3], True
            else:
                channels = layer.kernel.shape[1]
            found.append(_Part(layer.kernel.size, channels, strided, (at,)))
            at = len(found) - 1
        if number:
            found.append(_Part(0, channels, True, (total, at)))
            at = len(found) - 1
        total = at
    return tuple(found)
