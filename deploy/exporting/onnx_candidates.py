"""Static int8 .onnx files of one float32 graph, and what is tried to make them better."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dsconvert.base.predictor import Array
from dsconvert.converter.balancing import equalized
from dsconvert.formats.onnx.constants import constant_of, constant_shape
from dsconvert.formats.onnx.graph import OnnxGraph, is_op, name_nodes
from dsconvert.formats.onnx.open import load
from dsconvert.formats.onnx.save import save
from dsconvert.formats.quantization import CalibrationMethod

from . import onnx_tail
from .candidate_builder import Rounding
from .onnx_activations import OnnxValues, watched_values
from .onnx_static import quantize_static
from .output_tail import told_tail

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

_SAMPLES = 256
"""Samples that means come from."""


@dataclass(frozen=True)
class OnnxBuilder:
    """A `Builder` of QDQ files.

    Attributes:
        source: The float32 file, prepared for quantization, whole in itself.
        calibration: One array per input, (n, ...), as the file takes them.
        folder: For files on the way.
        method: How activations get their ranges.
        other: How else they might.
        tail: Nodes that stay in float in every file.
    """

    source: Path
    calibration: tuple[Array, ...]
    folder: Path
    method: CalibrationMethod = "minmax"
    other: CalibrationMethod | None = None
    tail: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        source: Path,
        calibration: Sequence[Array],
        folder: Path,
        method: CalibrationMethod,
        other: CalibrationMethod | None = None,
    ) -> OnnxBuilder:
        """A builder that can tell all nodes apart: those without a name of their own get one."""
        model = load(source, weights=True)
        name_nodes(model)
        path = folder / f"named-{source.name}"
        _write(model, path)
        return cls(path, tuple(calibration), folder, method, other)

    @property
    def suffix(self) -> str:
        """Of its files."""
        return ".onnx"

    def write(self, path: Path, in_float: Sequence[str] = ()) -> tuple[str, ...]:
        """Write the int8 file."""
        wanted = set(in_float)
        layers = OnnxValues(self.source).names.values()
        excluded = [*self.tail, *(layer.node for layer in layers if layer.name in wanted)]
        quantize_static(self.source, path, self.calibration, method=self.method, exclude=excluded)
        return ()

    def write_float(self, path: Path) -> None:
        """Write the same model in float32."""
        shutil.copyfile(self.source, path)

    def equalized(self) -> tuple[OnnxBuilder, tuple[str, ...]] | None:
        """Return a builder of the model with equal ranges inside its pairs; None without pairs."""
        model = load(self.source)
        new, notes = equalized(model, self.calibration)
        if new is model:
            return None
        path = self.folder / f"equalized-{self.source.name}"
        _write(new, path)
        return replace(self, source=path), notes

    def with_float_tail(self, samples: Sequence[Array]) -> tuple[OnnxBuilder, str] | None:
        """A builder whose files have their last nodes in float; None without mixed scales."""
        nodes = onnx_tail.makers(self.source, onnx_tail.tail_of(self.source, samples).mixed)
        if not nodes:
            return None
        return replace(self, tail=tuple(nodes)), told_tail(list(nodes.values()))

    def with_float_divisions(self, samples: Sequence[Array]) -> None:
        """Return None: ONNX Runtime divides by 0, and what comes of that is judged."""

    def otherwise(self) -> OnnxBuilder | None:
        """Return a builder whose activations get their ranges in another way; None for no other."""
        return None if self.other is None else replace(self, method=self.other, other=None)

    def rounded(self, choose: Rounding) -> tuple[None, str]:
        """Tell that weights are rounded to the nearest: the choice is for Keras models."""
        return None, "weights of .onnx files are rounded to the nearest"

    def corrected(self, full: Path, quantized: Path, path: Path) -> int:
        """Write the int8 file with biases that keep each channel's mean; how many changed.

        One layer after the other, each as the layers before it are by then.
        """
        samples = [array[:_SAMPLES] for array in self.calibration]
        reference, model = load(full), load(quantized)
        originals = {node.name: node for node in reference.graph.node if node.name}
        graph = OnnxGraph(model)
        layers = [node for node in graph.nodes if node.name in originals]
        biases = [(node, found) for node in layers if (found := _bias(graph, node)) is not None]
        if not biases:
            return 0
        outputs = [originals[node.name].output[0] for node, _ in biases]
        expected = _means(reference, outputs, full, samples)
        for (node, (bias, scale)), output in zip(biases, outputs, strict=True):
            (mean,) = _means(model, [node.output[0]], full, samples).values()
            _shift(bias, (expected[output] - mean) / scale)
        _write(model, path)
        return len(biases)


def _write(model: ModelProto, path: Path) -> None:
    """Write a candidate; what is chosen of them is checked afterwards."""
    save(model, None, path, overwrite=True, external=False, check=False)


def _bias(graph: OnnxGraph, node: NodeProto) -> tuple[TensorProto, Array] | None:
    """The int32 bias of a 1×1 convolution or dense layer, with its scale, if only it reads it."""
    from onnx import TensorProto

    if not is_op(node, "Conv", "Gemm") or len(node.input) < 3:
        return None
    bias = graph.makers.get(node.input[2])
    if bias is None or not is_op(bias, "DequantizeLinear"):
        return None
    kernel = constant_shape(graph, node.input[1])
    values, scale = graph.initializers.get(bias.input[0]), constant_of(graph, bias.input[1])
    if kernel is None or values is None or scale is None:
        return None
    shared = max(len(graph.readers[name]) for name in (bias.input[0], bias.output[0])) > 1
    pointwise = len(kernel) == 2 or kernel[2:] == (1, 1)
    if shared or not pointwise or values.data_type != TensorProto.INT32:
        return None
    return values, np.asarray(scale, np.float64)


def _means(
    model: ModelProto, values: Sequence[str], path: Path, samples: Sequence[Array]
) -> dict[str, Array]:
    """Return the mean of each channel, (C,), of inner values: axis 1 of images and of vectors."""
    sums: dict[str, Any] = dict.fromkeys(values, 0.0)
    batches = 0
    for found in watched_values(model, values, path, samples, _SAMPLES):
        batches += 1
        for name, array in found.items():
            axes = tuple(axis for axis in range(array.ndim) if axis != 1)
            sums[name] = sums[name] + np.asarray(array, np.float64).mean(axis=axes)
    return {name: total / batches for name, total in sums.items()}


def _shift(bias: TensorProto, steps: Array) -> None:
    from onnx import numpy_helper

    limits = np.iinfo(np.int32)
    values = numpy_helper.to_array(bias).astype(np.float64) + np.rint(steps)
    stored = np.clip(values, limits.min, limits.max).astype(np.int32)
    bias.CopyFrom(numpy_helper.from_array(stored, bias.name))
