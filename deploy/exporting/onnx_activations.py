"""The values inside an .onnx file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dsconvert.base.errors import InputError
from dsconvert.base.predictor import Array, at_once
from dsconvert.base.size_bounds import samples_at_once
from dsconvert.formats.layer_names import MOVERS, Layer, layer_name
from dsconvert.formats.onnx.graph import OnnxGraph
from dsconvert.formats.onnx.messages import copied
from dsconvert.formats.onnx.open import load
from dsconvert.formats.onnx.session import sentence, session
from dsconvert.formats.onnx.sizes import largest_of

from ..runtimes.onnxruntime import OnnxRuntimeSession
from ..runtimes.registry import open_runtime
from ..runtimes.samples import are_samples, samples_of
from ..runtimes.tensor_info import TensorInfo

if TYPE_CHECKING:
    from onnx import ModelProto

_DEQUANTIZED = "_DequantizeLinear_Output"
"""How ONNX Runtime's quantizer ends the name of what was quantized and is real again."""

_KERAS = "functional"
"""How names begin that are from Keras."""
_WEIGHT = re.compile(r"functional\w*/.*?/(?=convolution|depthwise|MatMul)\w+")


class OnnxValues:
    """An .onnx file whose inner values can be read.

    Attributes:
        inputs: The file's inputs.
        names: The node that makes each value, by the value's name in the float32 file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.inputs: tuple[TensorInfo, ...] = OnnxRuntimeSession(path, 1).inputs
        self._model = load(path)
        made = OnnxGraph(self._model).makers
        self.names: dict[str, Layer] = {}
        self._values: dict[str, str] = {}
        for value, node in made.items():
            if value.endswith((_DEQUANTIZED, "_QuantizeLinear_Output")):
                continue
            maker = node
            if node.op_type == "DequantizeLinear":  # an output of the graph, which keeps its name
                maker = made.get(f"{value}_QuantizeLinear_Input", node)
            if maker.op_type in MOVERS or value.endswith("_QuantizeLinear_Input"):
                continue
            self.names[value] = Layer(_layer_name(maker, value), maker.name, maker.op_type)
            real = value + _DEQUANTIZED
            self._values[value] = real if real in made else value
        self._session: Any = None
        self._watched: tuple[str, ...] = ()

    def run(self, inputs: Sequence[Array], names: Sequence[str]) -> dict[str, Array]:
        """Return the named values, as real ones, for one sample.

        Raises:
            InputError: If ONNX Runtime cannot run the file.
        """
        batch = self.inputs[0].shape[0] or 1
        feed = {
            info.name: np.repeat(array, batch, 0).astype(info.dtype)
            if batch > 1
            else np.ascontiguousarray(array, info.dtype)
            for array, info in zip(inputs, self.inputs, strict=True)
        }
        wanted = [self._values[name] for name in names]
        try:
            if self._watched != tuple(wanted):
                self._session, self._watched = self._open(wanted), tuple(wanted)
            found = self._session.run(wanted, feed)
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise InputError(
                f"{self.path} cannot be run: {sentence(error)}", code="does-not-run"
            ) from error
        return dict(zip(names, found, strict=True))

    def _open(self, wanted: Sequence[str]) -> Any:
        """Return a session that has these values as outputs too."""
        from onnx import ValueInfoProto

        model = copied(self._model)
        outputs = {value.name for value in model.graph.output}
        model.graph.output.extend(
            ValueInfoProto(name=name) for name in wanted if name not in outputs
        )
        return session(model, self.path.parent)


def _layer_name(node: Any, value: str) -> str:
    """Give the Keras layer where tf2onnx has written it; else what the node is called, or makes."""
    if node.name.startswith(_KERAS):
        return layer_name(node.name)
    # A convolution that a normalisation was folded into has a new name, its kernel has not.
    found = _WEIGHT.match(node.input[1]) if len(node.input) > 1 else None
    return layer_name(found[0]) if found else str(node.name or value)


def watched_values(
    model: ModelProto, values: Sequence[str], path: Path, samples: Sequence[Array], at_most: int
) -> Iterator[dict[str, Array]]:
    """Run a model and yield inner values, a batch at a time.

    Args:
        model: The model, with its weights.
        values: Names of the inner values.
        path: A file with the same inputs.
        samples: One array per input, (n, ...); those that fill no batch are left out.
        at_most: Samples of a batch whose size is free.

    Raises:
        InputError: If ONNX Runtime refuses the file, or the model with these values read.
    """
    from onnx import ValueInfoProto

    runtime = open_runtime(path)

    watched = copied(model)
    own = {value.name for value in model.graph.output}
    watched.graph.output.extend(ValueInfoProto(name=name) for name in values if name not in own)
    with _running(path):
        running = session(watched)
    largest = largest_of(model, None, [(1, *array.shape[1:]) for array in samples])
    size = runtime.batch or samples_at_once(largest, at_once(samples, at_most))
    together = samples_of(samples)

    def at(start: int, size: int) -> dict[str, Array]:
        rows = np.arange(start, start + size) % together
        part = [array[rows] for array in samples] if are_samples(samples) else list(samples)
        feed = {
            info.name: np.asarray(array, info.dtype, order="C")
            for info, array in zip(runtime.inputs, part, strict=True)
        }
        with _running(path):
            found = running.run(list(values), feed)
        return dict(zip(values, found, strict=True))

    try:
        first = at(0, size)
    except InputError:
        if runtime.batch:
            raise
        size = 1  # a batch that is free in name only
        first = at(0, size)
    yield first
    for start in range(size, together // size * size, size):
        yield at(start, size)


@contextmanager
def _running(path: Path) -> Iterator[None]:
    """Make a sentence of what ONNX Runtime raises."""
    try:
        yield
    except Exception as error:  # its exceptions share no base class
        raise InputError(
            f"{path} does not run in ONNX Runtime where values inside it are read: "
            f"{sentence(error)}",
            code="does-not-run",
        ) from error
