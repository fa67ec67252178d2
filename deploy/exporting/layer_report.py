"""What each layer of a quantized file loses, against the float32 file of the same model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dsconvert.base.errors import InputError
from dsconvert.base.predictor import Array

from ..runtimes.samples import check_inputs, count_samples, portions
from .layer_types import LayerError, QuantizationReport
from .onnx_activations import OnnxValues
from .tflite_activations import TfliteValues


def layer_report(full: Path, quantized: Path, inputs: Sequence[Array]) -> QuantizationReport:
    """Compare the output of every layer.

    Args:
        full: The float32 file, .tflite or .onnx.
        quantized: The quantized file of the same format, made from the same model.
        inputs: One real-valued array per input, (n, ...).

    Raises:
        InputError: If the files are of different formats, have no layer in common, or cannot run.
    """
    kinds = {full.suffix.lower(), quantized.suffix.lower()}
    readers: Mapping[str, Any] = {".tflite": TfliteValues, ".onnx": OnnxValues}
    if len(kinds) > 1 or not kinds <= readers.keys():
        raise InputError(
            f"the layers of {full} and {quantized} cannot be compared: the files must both be "
            ".tflite or both .onnx.",
            code="layers-not-comparable",
        )
    reader = readers[kinds.pop()]
    one, other = reader(full), reader(quantized)
    arrays = check_inputs(inputs, one.inputs, str(full))
    samples = count_samples(arrays, str(full))
    common = [name for name in one.names if name in other.names]
    if not common:
        raise InputError(
            f"{full} and {quantized} have no layer in common.", code="layers-not-comparable"
        )
    sums = {name: _Sums() for name in common}
    for part in portions(arrays, one.inputs[0].shape[0] or 1):
        references, values = one.run(part, common), other.run(part, common)
        for name in common:
            sums[name].add(references[name], values[name])
    layers = tuple(_error(name, other, sums[name]) for name in common)
    return QuantizationReport(
        samples=samples, layers=layers, unmatched=len(one.names) - len(common)
    )


def _error(name: str, file: TfliteValues | OnnxValues, sums: _Sums) -> LayerError:
    layer = file.names[name]
    return LayerError(
        name=layer.name,
        node=layer.node,
        op=layer.op,
        finite=sums.finite,
        sqnr_db=sums.sqnr_db,
        signal=sums.signal,
    )


class _Sums:
    """Σ r², Σ (r − y)² and their count."""

    def __init__(self) -> None:
        self._signal = self._noise = 0.0
        self._count = 0
        self.finite = True

    def add(self, reference: Array, values: Array) -> None:
        r = np.asarray(reference, np.float64).ravel()
        y = np.asarray(values, np.float64).ravel()
        self.finite = self.finite and bool(np.isfinite(y).all())
        self._signal += float(r @ r)
        self._noise += float((r - y) @ (r - y))
        self._count += len(r)

    @property
    def sqnr_db(self) -> float | None:
        defined = self.finite and self._signal > 0 and self._noise > 0
        return 10 * math.log10(self._signal / self._noise) if defined else None

    @property
    def signal(self) -> float:
        return math.sqrt(self._signal / max(1, self._count))
