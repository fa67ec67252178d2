"""An .onnx file as export needs it: described, run for reference, and prepared for quantization."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsconvert.base.errors import InputError, require
from dsconvert.base.predictor import Array
from dsconvert.base.quiet import captured
from dsconvert.formats.onnx.graph import OnnxGraph
from dsconvert.formats.onnx.open import load
from dsconvert.formats.onnx.save import save
from dsconvert.formats.onnx.tensors import has_external_data

from ..runtimes.registry import open_runtime
from ..runtimes.session import Session
from ..runtimes.tensor_info import TensorInfo

_PER_CHANNEL_OPSET = 13
"""From which on QuantizeLinear has an axis."""


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
        """The outputs for one array per input, (n, ...), as float32.

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
    found = _quantized_as(model.graph)
    if found:
        raise InputError(
            f"{path} holds {found}: it was quantized already, and would lose accuracy twice.",
            "Give the float32 file that it was made from.",
        )
    return OnnxSource(path=path, runtime=runtime, external=has_external_data(model))


def _quantized_as(graph: Any) -> str:
    """What says that a graph is not float32: an operator or an element type; empty if nothing."""
    for node in graph.node:
        if node.op_type.endswith(("QuantizeLinear", "Integer")) or node.op_type.startswith(
            "QLinear"
        ):
            return f"the operator {node.op_type}"
    half = any(tensor.data_type in (10, 16) for tensor in graph.initializer)
    return "half-precision weights" if half else ""


def prepared(source: Path, folder: Path, external: bool) -> tuple[Path, tuple[str, ...]]:
    """The graph as quantization wants it: opset 13 or newer, normalisations folded, shapes known.

    A BatchNormalization that stays behind its convolution would be quantized by itself.

    Args:
        source: The float32 file.
        folder: Where to write intermediate files.
        external: Whether to write large weights to a file beside.

    Returns:
        The file, which is the source where nothing could be done; and what its user should know.
    """
    onnx = require("onnx", "onnx", "to quantize .onnx files")
    quantization = require("onnxruntime.quantization", "onnx", "to quantize .onnx files")
    current, notes = source, []
    opset = OnnxGraph(load(source)).opset
    if opset < _PER_CHANNEL_OPSET:
        raised = folder / "opset.onnx"
        with captured():
            try:
                proto = onnx.version_converter.convert_version(
                    load(source, weights=True), _PER_CHANNEL_OPSET
                )
                save(proto, None, raised, overwrite=True, external=external, check=False)
                open_runtime(raised)
                current = raised
                notes.append(
                    f"converted from opset {opset} to {_PER_CHANNEL_OPSET}: quantization per "
                    "channel needs it"
                )
            except Exception as error:  # the converter raises RuntimeError and others
                raise InputError(
                    f"{source.name} is of opset {opset}, quantization per channel needs "
                    f"{_PER_CHANNEL_OPSET}, and onnx cannot convert it: {error}",
                    f"Export the original model again with opset {_PER_CHANNEL_OPSET} or newer.",
                ) from error
    folded = folder / "folded.onnx"
    with captured():
        try:
            quantization.shape_inference.quant_pre_process(
                str(current),
                str(folded),
                skip_symbolic_shape=True,  # needs sympy
                save_as_external_data=external,
                all_tensors_to_one_file=True,
            )
            open_runtime(folded)
        except Exception:  # unfoldable graphs are quantized as they are
            return current, tuple(notes)
    return folded, tuple(notes)
