"""The values inside a .tflite file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dsconvert.base.errors import InputError, require
from dsconvert.base.predictor import Array
from dsconvert.formats.layer_names import MOVERS, Layer, layer_name

from ..runtimes.litert import LiteRTSession, litert_info
from ..runtimes.session import decode, first_line


class Linear(NamedTuple):
    """A 1×1 convolution or a dense layer with a bias; tensors by their index.

    Attributes:
        source: What it reads.
        kernel: (N, 1, 1, C) or (N, C).
        bias: (N,).
        strides: Of a convolution.
    """

    source: int
    kernel: int
    bias: int
    strides: tuple[int, int]


class TfliteValues(LiteRTSession):
    """A .tflite file whose inner values can be read; without XNNPACK, which hides them.

    Attributes:
        names: Each layer, by a name that is the same in all files made from one model.
        linear: The 1×1 convolutions and dense layers with a bias among them.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, 1)
        schema = require("ai_edge_litert.schema_py_generated", "keras", "to read .tflite files")
        kinds = {
            value: name.title()
            for name, value in vars(schema.BuiltinOperator).items()
            if isinstance(value, int)
        }
        model = schema.Model.GetRootAs(bytearray(path.read_bytes()))
        graph = model.Subgraphs(0)
        self.names: dict[str, Layer] = {}
        self.linear: dict[str, Linear] = {}
        self._graph, self._schema = graph, schema
        self._tensors: dict[str, int] = {}
        self._kinds: dict[int, str] = {}
        called: Counter[str] = Counter()
        outputs = dict(zip(self._outputs, self.output_names, strict=True))
        for i in range(graph.OperatorsLength()):
            op = graph.Operators(i)
            code = model.OperatorCodes(op.OpcodeIndex())
            kind = kinds.get(max(code.BuiltinCode(), code.DeprecatedBuiltinCode()), "Custom")
            self._kinds |= {int(op.Outputs(j)): kind for j in range(op.OutputsLength())}
            if kind in MOVERS or op.OutputsLength() == 0:
                continue
            index = int(op.Outputs(0))
            node = graph.Tensors(index).Name().decode()
            name = layer_name(outputs.get(index, node))
            called[name] += 1
            name = name if called[name] == 1 else f"{name} ({called[name]})"
            self.names[name] = Layer(name, node, kind)
            self._tensors[name] = index
            found = self._linear(op, kind)
            if found is not None:
                self.linear[name] = found
        self._details: dict[int, dict[str, Any]] = {}

    def _options(self, litert: Any) -> dict[str, Any]:
        plain = litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        return {
            "experimental_preserve_all_tensors": True,
            "experimental_op_resolver_type": plain,
        }

    def _run(self, arrays: Sequence[Array]) -> Sequence[Array]:
        """Run once.

        Raises:
            InputError: If a kernel refuses the values, such as a division by 0.
        """
        try:
            return super()._run(arrays)
        except RuntimeError as error:  # the interpreter's own
            raise InputError(
                f"{self.path.name} does not run on these samples: {first_line(error)}",
                code="does-not-run",
            ) from error

    def run(self, inputs: Sequence[Array], names: Sequence[str]) -> dict[str, Array]:
        """Return the named values, as real ones, for one batch of the size that the file has."""
        self._run(self._encoded(inputs))
        return {name: self._value(self._tensors[name]) for name in names}

    def read(self, inputs: Sequence[Array], tensor: int) -> Array:
        """Return the value of one tensor, as real numbers, for one batch of the file's size."""
        self._run(self._encoded(inputs))
        return self._value(tensor)

    def values(self, inputs: Sequence[Array], tensors: Sequence[int]) -> list[Array]:
        """Return the values of tensors, as real numbers, for one batch of the file's size."""
        self._run(self._encoded(inputs))
        return [self._value(tensor) for tensor in tensors]

    def reads(self) -> dict[int, list[int]]:
        """Return what each operator reads, by each tensor that it makes."""
        return {made: inputs for _, inputs, outputs in self.operators() for made in outputs}

    def operators(self) -> list[tuple[str, list[int], list[int]]]:
        """Return each operator's kind, the tensors that it reads, and those that it makes."""
        found = []
        for i in range(self._graph.OperatorsLength()):
            op = self._graph.Operators(i)
            outputs = [int(op.Outputs(j)) for j in range(op.OutputsLength())]
            kind = self._kinds[outputs[0]] if outputs else ""
            found.append((kind, [int(op.Inputs(j)) for j in range(op.InputsLength())], outputs))
        return found

    def kinds(self) -> dict[str, str]:
        """Return the operator that makes each tensor, by the tensor's name."""
        return {self.tensor_name(index): kind for index, kind in self._kinds.items()}

    @property
    def input_tensors(self) -> tuple[int, ...]:
        """The inputs, in the order of the file."""
        return tuple(self._inputs)

    @property
    def output_tensors(self) -> tuple[int, ...]:
        """The outputs, in the order of the file."""
        return tuple(self._outputs)

    def tensor_name(self, tensor: int) -> str:
        """Return what the file calls a tensor."""
        name: str = self._graph.Tensors(tensor).Name().decode()
        return name

    def constant(self, tensor: int) -> Array:
        """Weights as real numbers in float64: a kernel as (N, C), a bias as (N,).

        A bias may have axes of size one in front: the converter makes it of a multiplication
        behind the layer.
        """
        values = np.asarray(self._interpreter.get_tensor(tensor), np.float64)
        vector = values.size == max(values.shape, default=1) and self._is_bias(tensor)
        values = values.reshape(-1, 1) if vector else values.reshape(len(values), -1)
        scales = self.scales(tensor)
        if len(scales):
            zeros = self._detail(tensor)["quantization_parameters"]["zero_points"]
            values = (values - zeros[:, None]) * scales[:, None]
        return values[:, 0] if vector else values

    def scales(self, tensor: int) -> Array:
        """Return the scales of a tensor, (N,) or (1,), or none."""
        scales = self._detail(tensor)["quantization_parameters"]["scales"]
        return np.asarray(scales, np.float64)

    def stored(self, content: bytearray, tensor: int) -> Array | None:
        """The integers of a bias where they lie in the file's content; None for another type."""
        model = self._schema.Model.GetRootAs(content)
        described = model.Subgraphs(0).Tensors(tensor)
        if described.Type() != self._schema.TensorType.INT32:
            return None
        buffer = model.Buffers(described.Buffer()).DataAsNumpy()
        return None if isinstance(buffer, int) else buffer.view(np.int32)

    def _linear(self, op: Any, kind: str) -> Linear | None:
        if kind not in ("Conv_2D", "Fully_Connected") or op.InputsLength() < 3:
            return None
        source, kernel, bias = (int(op.Inputs(i)) for i in range(3))
        shape = list(self._graph.Tensors(kernel).ShapeAsNumpy())
        if bias < 0 or (kind == "Conv_2D" and shape[1:3] != [1, 1]):
            return None
        strides = (1, 1)
        if kind == "Conv_2D":
            table = op.BuiltinOptions()
            options = self._schema.Conv2DOptions()
            options.Init(table.Bytes, table.Pos)
            strides = (options.StrideH(), options.StrideW())
        return Linear(source, kernel, bias, strides)

    def _is_bias(self, tensor: int) -> bool:
        return any(tensor == layer.bias for layer in self.linear.values())

    def _detail(self, tensor: int) -> dict[str, Any]:
        if not self._details:
            found = self._interpreter.get_tensor_details()
            self._details = {details["index"]: details for details in found}
        return self._details[tensor]

    def _value(self, tensor: int) -> Array:
        info = litert_info(self.path, self._detail(tensor), {})
        return decode(self._interpreter.get_tensor(tensor), info)
