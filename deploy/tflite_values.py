"""The values inside a .tflite file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dsconvert.converter.core.errors import require
from dsconvert.converter.core.predictor import Array

from .litert import LiteRT, _litert_info
from .runtime import decode
from .types import TensorInfo
from .values import MOVERS, Layer, layer_name


class TfliteValues(LiteRT):
    """A .tflite file whose inner values can be read; without XNNPACK, which hides them.

    Attributes:
        names: Each layer, by a name that is the same in all files made from one model.
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
        self._tensors: dict[str, int] = {}
        called: Counter[str] = Counter()
        outputs = dict(zip(self._outputs, self.output_names, strict=True))
        for i in range(graph.OperatorsLength()):
            op = graph.Operators(i)
            code = model.OperatorCodes(op.OpcodeIndex())
            kind = kinds.get(max(code.BuiltinCode(), code.DeprecatedBuiltinCode()), "Custom")
            if kind in MOVERS or op.OutputsLength() == 0:
                continue
            index = int(op.Outputs(0))
            node = graph.Tensors(index).Name().decode()
            name = layer_name(outputs.get(index, node))
            called[name] += 1
            name = name if called[name] == 1 else f"{name} ({called[name]})"
            self.names[name] = Layer(name, node, kind)
            self._tensors[name] = index
        self._details: dict[int, TensorInfo] = {}

    def _options(self, litert: Any) -> dict[str, Any]:
        plain = litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        return {
            "experimental_preserve_all_tensors": True,
            "experimental_op_resolver_type": plain,
        }

    def run(self, inputs: Sequence[Array], names: Sequence[str]) -> dict[str, Array]:
        """The named values, as real ones, for one batch of the size that the file has."""
        self._run(self._encoded(inputs))
        if not self._details:
            self._details = {
                details["index"]: _litert_info(self.path, details, {})
                for details in self._interpreter.get_tensor_details()
                if details["index"] in self._tensors.values()
            }
        return {
            name: decode(
                self._interpreter.get_tensor(self._tensors[name]),
                self._details[self._tensors[name]],
            )
            for name in names
        }
