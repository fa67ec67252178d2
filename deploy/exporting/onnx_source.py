"""An .onnx file as export needs it: described, and run for reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsconvert.base.errors import InputError
from dsconvert.base.predictor import Array
from dsconvert.formats.onnx.dequantize import is_quantized_operator
from dsconvert.formats.onnx.half import HALF
from dsconvert.formats.onnx.open import load
from dsconvert.formats.onnx.tensors import has_external_data

from ..runtimes.registry import open_runtime
from ..runtimes.session import Session
from ..runtimes.tensor_info import TensorInfo


@dataclass(frozen=True)
class OnnxSource:
    """What is exported, and the reference for what was.

    Attributes:
        path: The float32 file.
        runtime: ONNX Runtime with it.
        external: Whether its large weights are in a file beside it.
        notes: What its user should know.
    """

    path: Path
    runtime: Session
    external: bool
    notes: tuple[str, ...] = ()

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """Its inputs, in the order of the file."""
        return self.runtime.inputs

    @property
    def output_names(self) -> tuple[str, ...]:
        """Its outputs' names, in the order of the file."""
        return self.runtime.output_names

    def predict(self, inputs: Sequence[Array]) -> tuple[Array, ...]:
        """Return the outputs for one array per input, (n, ...), as float32.

        Raises:
            InputError: If the model cannot run on them, or has outputs without a batch axis.
        """
        return self.runtime.predict(inputs)


def read_onnx(path: Path) -> OnnxSource:
    """Open a float32 .onnx file.

    Raises:
        InputError: If it cannot be loaded, or stores other numbers than float32.
    """
    runtime = open_runtime(path)
    model = load(path)
    refuse_quantized(model.graph, path)
    return OnnxSource(path=path, runtime=runtime, external=has_external_data(model))


def refuse_quantized(graph: Any, told: object) -> None:
    """Refuse the graph of an .onnx file that is not of float32.

    Args:
        graph: The graph.
        told: What messages call it.

    Raises:
        InputError: If it stores other numbers.
    """
    found = _quantized_as(graph)
    if found:
        raise InputError(
            f"{told} holds {found}: it was quantized already, and would lose accuracy twice.",
            "Give the float32 file that it was made from, or add --dequantize to take the float "
            "model that its values stand for.",
            code="quantized-already",
        )


def _quantized_as(graph: Any) -> str:
    """Name the operator or element type that is not of a float32 graph; empty if none is."""
    for node in graph.node:
        if is_quantized_operator(node):
            return f"the operator {node.op_type}"
    half = any(tensor.data_type in HALF for tensor in graph.initializer)
    return "half-precision weights" if half else ""
