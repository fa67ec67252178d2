"""The memory that TensorFlow Lite for Microcontrollers (TFLM) needs for a file's activations.

A microcontroller's interpreter is given one block of memory, the *tensor arena*. At its start lie
the activations, at offsets that TFLM's greedy planner (``greedy_memory_planner.cc``) chooses before
the first run: the largest tensor first, each at the lowest offset where it fits between those that
are alive at the same time. Here the same is done from the file alone:

- a tensor lives from the operator that writes it to the last one that reads it; the inputs from
  the start, the outputs to the end;
- sizes are rounded up to 16 bytes; no operator works in place, and a RESHAPE has a tensor of its
  own;
- constants stay in flash.

On six files the plan was, to the byte, that of TFLM itself (tflite-micro 0.dev20261023 with the
reference kernels on x86-64, "head" of its recorded allocations); beside it what TFLM keeps at the
end of the arena ("tail"), about tensors, operators and kernels, which is not counted here:

| file, int8 unless it says otherwise | activations | kept, x86-64 | of it multipliers |
|---|---|---|---|
| LeNet, MNIST | 23,040 | 6,048 | 640 |
| a CIFAR-10 CNN | 36,000 | 3,744 | 768 |
| MLPerf Tiny ResNet8 | 49,152 | 6,784 | 2,688 |
| the same in float32 | 196,608 | 6,624 | 2,688 |
| MLPerf Tiny visual wake words | 73,728 | 29,840 | 21,888 |
| VGG-block CIFAR-10 | 131,072 | 10,848 | 7,168 |

What is kept depends on the kernels and on the size of a pointer; the multipliers are the part that
does not. Scratch buffers, which optimized kernels (CMSIS-NN) ask for, are not counted either: the
reference kernels hardly need any.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from dsconvert.base.errors import InputError, require
from dsconvert.base.input_size import UNKNOWN
from dsconvert.formats.tflite.checking import check_tflite, reading
from dsconvert.formats.tflite.free_sizes import has_free_size

ALIGNMENT = 16
_BYTES = {
    **dict.fromkeys(("BOOL", "INT8", "UINT8"), 1),
    **dict.fromkeys(("BFLOAT16", "FLOAT16", "INT16", "UINT16"), 2),
    **dict.fromkeys(("FLOAT32", "INT32", "UINT32"), 4),
    **dict.fromkeys(("COMPLEX64", "FLOAT64", "INT64", "UINT64"), 8),
}
_WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")


class Buffer(NamedTuple):
    """A tensor in need of memory.

    Attributes:
        size: In bytes.
        first: The step at which it is written: 0 for inputs, n + 1 for operator n.
        last: The step of its last reader.
        name: As the file calls it.
    """

    size: int
    first: int
    last: int
    name: str = ""

    def meets(self, other: Buffer) -> bool:
        """Tell whether both are alive in some step."""
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True)
class Arena:
    """What a file's activations need.

    Attributes:
        planned: Bytes that the greedy planner takes.
        floor: The most bytes that are alive in one step: no plan needs less.
        buffers: The activations.
        offsets: Where each of them lies.
        weights: Bytes of the constants, which stay in flash.
        multipliers: Bytes that kernels keep in the arena whatever the processor: a factor and a
            shift of 32 bits each per output channel of a convolution.
        types: What the activations are, e.g. {"INT8"}.
        kernels: What the weights of convolutions and dense layers are.
        input_shapes: Of one invocation; a free batch is stored as 1.
    """

    planned: int
    floor: int
    buffers: tuple[Buffer, ...]
    offsets: tuple[int, ...]
    weights: int
    multipliers: int
    types: frozenset[str]
    kernels: frozenset[str]
    input_shapes: tuple[tuple[int, ...], ...]


def arena_of(path: Path) -> Arena:
    """Plan the activations of a .tflite file.

    Raises:
        InputError: If it is no such file, has several subgraphs (control flow), an input of free
            size, or holds tensors whose size is not known before it runs.
        MissingExtra: If what reads .tflite files is not installed.
    """
    with reading(path):
        check_tflite(path)  # first: a damaged count of tensors would be counted to its end
        file = TensorFile(path)
        free = [index for index in file.inputs if file.is_free(index)]
        if free:  # stored as 1: what that needs is nobody's figure
            raise InputError(
                f"{path}: unavailable: {UNKNOWN} as the file is made.",
                f"Try: dsconvert export MODEL -o {path.name} --input-size 256x256",
                code="free-sizes",
            )
        buffers = file.buffers()
        offsets = plan(buffers)
        return Arena(
            planned=needed(buffers, offsets),
            floor=floor(buffers),
            buffers=buffers,
            offsets=offsets,
            weights=file.weights(),
            multipliers=file.multipliers(),
            types=frozenset(file.type_of(i) for i in file.activations),
            kernels=file.kernels(),
            input_shapes=tuple(file.shape_of(i) for i in file.inputs),
        )


def plan(buffers: Sequence[Buffer]) -> tuple[int, ...]:
    """Return the offset of each buffer, as TFLM's greedy planner chooses it.

    Among buffers of one size the one that was added last comes first.
    """
    order = sorted(range(len(buffers)), key=lambda i: (-_aligned(buffers[i].size), -i))
    offsets = [0] * len(buffers)
    placed: list[int] = []
    for i in order:
        start = 0
        for j in sorted(
            (j for j in placed if buffers[i].meets(buffers[j])), key=offsets.__getitem__
        ):
            if offsets[j] - start >= _aligned(buffers[i].size):
                break
            start = max(start, offsets[j] + _aligned(buffers[j].size))
        offsets[i] = start
        placed.append(i)
    return tuple(offsets)


def needed(buffers: Iterable[Buffer], offsets: Iterable[int]) -> int:
    """Return the bytes that a plan takes."""
    ends = (o + _aligned(buffer.size) for buffer, o in zip(buffers, offsets, strict=True))
    return max(ends, default=0)


def floor(buffers: Sequence[Buffer]) -> int:
    """Return the most bytes that are alive in one step."""
    steps = {buffer.first for buffer in buffers}  # the sum only grows where one begins
    alive = ((b for b in buffers if b.first <= step <= b.last) for step in steps)
    return max((sum(_aligned(b.size) for b in some) for some in alive), default=0)


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


class Operator(NamedTuple):
    """An operator of a file.

    Attributes:
        type: As the format calls it, e.g. "CONV_2D".
        inputs: The numbers of its tensors; -1 is an optional one that is left out.
        outputs: Likewise.
    """

    type: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


class TensorFile:
    """A .tflite file with one subgraph; tensors by their numbers.

    Raises:
        InputError: As `arena_of`.
        MissingExtra: Likewise.
    """

    def __init__(self, path: Path) -> None:
        schema = require("ai_edge_litert.schema_py_generated", "keras", "to read .tflite files")
        data = path.read_bytes()
        self._path = path
        self._model = schema.Model.GetRootAs(data)
        if self._model.SubgraphsLength() != 1:
            raise InputError(
                f"{path} has {self._model.SubgraphsLength()} subgraphs: the memory of files with "
                "control flow is not estimated.",
                code="control-flow",
            )
        self._graph = self._model.Subgraphs(0)
        self._types = _names(schema.TensorType)
        self._operators = _names(schema.BuiltinOperator)
        self.tensors = self._graph.TensorsLength()
        self.operators = tuple(self._read_operators())
        self.inputs = [self._graph.Inputs(i) for i in range(self._graph.InputsLength())]
        self.outputs = [self._graph.Outputs(i) for i in range(self._graph.OutputsLength())]
        self._first, self._last = lives(self.inputs, self.operators, self.outputs)
        self.activations = [
            i
            for i in range(self._graph.TensorsLength())
            if i in self._first
            and not self._constant(i)
            and not self._graph.Tensors(i).IsVariable()
        ]

    def buffers(self) -> tuple[Buffer, ...]:
        """Return the activations with their lives."""
        return tuple(
            Buffer(self.size_of(i), self._first[i], self._last[i], self._name(i))
            for i in self.activations
        )

    def weights(self) -> int:
        """Bytes of the constants; equal ones may share a buffer, which counts once."""
        tensors = range(self._graph.TensorsLength())
        buffers = {self._graph.Tensors(i).Buffer(): self._constant(i) for i in tensors}
        return sum(buffers.values())

    def kernels(self) -> frozenset[str]:
        """Return the types of the weights of convolutions and dense layers."""
        return frozenset(self.type_of(weights) for _, weights, _ in self._weighted())

    def multipliers(self) -> int:
        """Bytes for the factors of convolutions; TFLM keeps room for them in float files too."""
        return sum(
            8 * self.shape_of(output)[-1]
            for name, _, output in self._weighted()
            if name != "FULLY_CONNECTED"
        )

    def _weighted(self) -> Iterator[tuple[str, int, int]]:
        """Name, weights and output of each operator with weights."""
        for op in self.operators:
            if op.type in _WEIGHTED:
                yield op.type, op.inputs[1], op.outputs[0]

    def _read_operators(self) -> Iterator[Operator]:
        for number in range(self._graph.OperatorsLength()):
            op = self._graph.Operators(number)
            code = self._model.OperatorCodes(op.OpcodeIndex())
            yield Operator(
                self._operators.get(max(code.BuiltinCode(), code.DeprecatedBuiltinCode()), ""),
                tuple(op.Inputs(i) for i in range(op.InputsLength())),
                tuple(op.Outputs(i) for i in range(op.OutputsLength())),
            )

    def scales(self) -> int:
        """Count the scales of the constants: with one per channel they fill small files."""
        found = 0
        for index in range(self._graph.TensorsLength()):
            quantization = self._graph.Tensors(index).Quantization()
            if quantization is not None and self._constant(index):
                found += quantization.ScaleLength()
        return found

    def type_of(self, index: int) -> str:
        """Return what a tensor holds, e.g. "INT8"."""
        return self._types[self._graph.Tensors(index).Type()]

    def shape_of(self, index: int) -> tuple[int, ...]:
        """Return a tensor's shape; a free size is stored as 1."""
        tensor = self._graph.Tensors(index)
        return tuple(int(tensor.Shape(axis)) for axis in range(tensor.ShapeLength()))

    def is_free(self, index: int) -> bool:
        """Tell whether a tensor has a free size beside its batch."""
        return has_free_size(self._graph.Tensors(index))

    def _constant(self, index: int) -> int:
        """Return the bytes of a constant; 0 for what is computed."""
        buffer = self._model.Buffers(self._graph.Tensors(index).Buffer())
        return int(buffer.DataLength() or buffer.Size())

    def _name(self, index: int) -> str:
        return (self._graph.Tensors(index).Name() or b"").decode()

    def size_of(self, index: int) -> int:
        """Return a tensor's bytes."""
        type_ = self.type_of(index)
        if type_ not in _BYTES:
            raise InputError(
                f"{self._path}: {self._name(index)} holds {type_}, whose size is not known.",
                code="size-unknown",
            )
        return prod(self.shape_of(index)) * _BYTES[type_]


def lives(
    inputs: Iterable[int], operators: Sequence[Operator], outputs: Iterable[int]
) -> tuple[dict[int, int], dict[int, int]]:
    """Return the steps at which each tensor is written first and used last."""
    first = dict.fromkeys(inputs, 0)
    last = dict(first)
    for step, op in enumerate(operators, 1):
        for index in op.outputs:
            first.setdefault(index, step)
        for index in (*op.inputs, *op.outputs):
            if index >= 0:  # an optional input that is left out is -1
                last[index] = step
    for index in outputs:
        last[index] = len(operators)
    return first, last


def _names(enum: Any) -> dict[int, str]:
    return {value: name for name, value in vars(enum).items() if isinstance(value, int)}
