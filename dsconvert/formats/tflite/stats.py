"""What a .tflite file is made of, from its flatbuffer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from dsconvert.base.errors import require
from dsconvert.base.predictor import Shape
from dsconvert.base.quiet import captured

from ..stats import Kind, ModelStats, Op, kind_of_kernel, largest, total
from .checking import reading
from .free_sizes import has_free_size

_BITS = {
    **dict.fromkeys(("FLOAT32", "INT32", "UINT32"), 32),
    **dict.fromkeys(("FLOAT16", "BFLOAT16", "INT16", "UINT16"), 16),
    **dict.fromkeys(("INT8", "UINT8", "BOOL"), 8),
    **dict.fromkeys(("FLOAT64", "INT64", "UINT64", "COMPLEX64"), 64),
    **dict.fromkeys(("INT4", "UINT4"), 4),
    "INT2": 2,
    "COMPLEX128": 128,
}
_RENAMING = ("RESHAPE", "SQUEEZE", "EXPAND_DIMS")
_UNCOUNTED = ("CUSTOM", "IF", "WHILE", "CALL", "SVDF", "STABLEHLO_COMPOSITE")
"""Operators that may multiply and that nothing here counts; recurrent ones, by their names, too."""


def read_tflite(
    path: Path, shapes: Sequence[Shape], check: Callable[[], None] = lambda: None
) -> ModelStats:
    """Read a file.

    Args:
        path: The file.
        shapes: Those of the inputs of one invocation.
        check: Called before the file is run for its sizes; raises what speaks against it.
    """
    schema = require("ai_edge_litert.schema_py_generated", "keras", "to read .tflite files")
    with reading(path):
        model = schema.Model.GetRootAs(bytearray(path.read_bytes()))
        graph = _Graph(model, schema, _sizes(path, model.Subgraphs(0), shapes, check))
        ops = tuple(graph.op(i) for i in range(graph.subgraph.OperatorsLength()))
        return ModelStats(ops, total(ops), _weights(model), largest(ops))


def _sizes(
    path: Path, subgraph: Any, shapes: Sequence[Shape], check: Callable[[], None]
) -> dict[int, Shape]:
    """Return the shapes of tensors where the file leaves sizes free, as LiteRT finds them."""
    inputs = [int(subgraph.Inputs(i)) for i in range(subgraph.InputsLength())]
    stored = [_shape(subgraph.Tensors(i)) for i in inputs]
    tensors = [subgraph.Tensors(i) for i in range(subgraph.TensorsLength())]
    if list(map(tuple, shapes)) == stored and not any(map(has_free_size, tensors)):
        return {}
    check()
    litert = require("ai_edge_litert.interpreter", "keras", "to read .tflite files")
    with captured():
        # XNNPACK would hide the values inside.
        plain = litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        interpreter = litert.Interpreter(str(path), experimental_op_resolver_type=plain)
        for index, shape in zip(inputs, shapes, strict=True):
            interpreter.resize_tensor_input(index, shape)
        interpreter.allocate_tensors()
        # Sizes that the network computes, as those of a Resize to twice the input's, are known once
        # it has run.
        for tensor in interpreter.get_input_details():
            interpreter.set_tensor(tensor["index"], np.zeros(tensor["shape"], tensor["dtype"]))
        interpreter.invoke()
        details = interpreter.get_tensor_details()
    return {d["index"]: tuple(map(int, d["shape"])) for d in details}


def _shape(tensor: Any) -> tuple[int, ...]:
    return tuple(map(int, np.atleast_1d(tensor.ShapeAsNumpy()))) if tensor.ShapeLength() else ()


def _weights(model: Any) -> int:
    """Bytes of the buffers that tensors of any subgraph have; a shared one counts once."""
    used = set()
    for s in range(model.SubgraphsLength()):
        subgraph = model.Subgraphs(s)
        used |= {subgraph.Tensors(t).Buffer() for t in range(subgraph.TensorsLength())}
    buffers = [model.Buffers(i) for i in used]
    # Beyond 2 GiB the data lie behind the flatbuffer.
    return sum(int(buffer.DataLength() or buffer.Size()) for buffer in buffers)


@dataclass
class _Graph:
    """The main subgraph, with the shapes that one invocation gives its tensors."""

    model: Any
    schema: Any
    sizes: dict[int, Shape]

    def __post_init__(self) -> None:
        self.subgraph = self.model.Subgraphs(0)
        self.codes = _names(self.schema.BuiltinOperator)
        self.types = _names(self.schema.TensorType)

    def op(self, index: int) -> Op:
        """Describe an operator."""
        op = self.subgraph.Operators(index)
        code = self.model.OperatorCodes(op.OpcodeIndex())
        type_ = self.codes.get(max(code.BuiltinCode(), code.DeprecatedBuiltinCode()), "CUSTOM")
        outputs = [int(op.Outputs(i)) for i in range(op.OutputsLength())]
        inputs = [int(op.Inputs(i)) for i in range(op.InputsLength())]
        named = self.subgraph.Tensors(outputs[0]).Name() if outputs else None
        name = named.decode() if named else f"{type_} {index}"
        values = [i for i in (*inputs, *outputs) if i >= 0 and not self._is_constant(i)]
        moved = 0 if type_ in _RENAMING else self._bytes(dict.fromkeys(values))
        kind, macs = self._work(type_, op, inputs, outputs)
        return Op(name, type_, kind, macs, moved)

    def _work(
        self, type_: str, op: Any, inputs: list[int], outputs: list[int]
    ) -> tuple[Kind, int | str]:
        """The kind and the MACs: each weight of a convolution is used once per output position."""
        if type_ in ("CONV_2D", "DEPTHWISE_CONV_2D", "CONV_3D"):
            kernel, output = self._shape(inputs[1]), self._shape(outputs[0])
            macs = prod(kernel) * prod(output[:-1])
            if type_ == "DEPTHWISE_CONV_2D":
                return "depthwise", macs
            taps, per_group = (
                (kernel[:3], kernel[3]) if type_ == "CONV_3D" else (kernel[1:3], kernel[3])
            )
            groups = self._shape(inputs[0])[-1] // per_group
            return kind_of_kernel(prod(taps), per_group, groups), macs
        if type_ == "TRANSPOSE_CONV":  # once per input position; the first input is the size
            return "convolution", prod(self._shape(inputs[1])) * prod(self._shape(inputs[2])[:-1])
        if type_ == "FULLY_CONNECTED":
            weights = self._shape(inputs[1])
            return "dense", weights[0] * prod(self._shape(inputs[0]))
        if type_ == "BATCH_MATMUL":
            table = op.BuiltinOptions()
            options = self.schema.BatchMatMulOptions()
            options.Init(table.Bytes, table.Pos)
            inner = self._shape(inputs[0])[-2 if options.AdjX() else -1]
            return "dense", prod(self._shape(outputs[0])) * inner
        if type_ in _UNCOUNTED or type_.endswith(("LSTM", "RNN")):
            return "other", f"unavailable: the MACs of {type_} are not counted"
        return "other", 0

    def _shape(self, index: int) -> tuple[int, ...]:
        found = self.sizes.get(index)
        return tuple(size or 0 for size in found) if found else _shape(self.subgraph.Tensors(index))

    def _is_constant(self, index: int) -> bool:
        buffer = self.model.Buffers(self.subgraph.Tensors(index).Buffer())
        return bool(buffer.DataLength() or buffer.Size() > 1)

    def _bytes(self, indices: Sequence[int] | dict[int, None]) -> int | str:
        count = 0
        for index in indices:
            type_ = self.types.get(self.subgraph.Tensors(index).Type(), "")
            if type_ not in _BITS:
                return f"unavailable: the size of {type_ or 'an unknown type'} is not known"
            count += -(-prod(self._shape(index)) * _BITS[type_] // 8)
        return count


def _names(enum: Any) -> dict[int, str]:
    return {value: name for name, value in vars(enum).items() if isinstance(value, int)}
