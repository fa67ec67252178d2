"""Static int8 .tflite files of one Keras model, and what is tried to make them better."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from dsconvert.base.errors import InputError, require
from dsconvert.base.predictor import Array
from dsconvert.base.quiet import captured
from dsconvert.converter.balancing import equalized
from dsconvert.formats.quantization import CalibrationMethod, Quantization
from dsconvert.formats.tflite.pack import with_own_buffers

from ..runtimes.samples import portions
from ..runtimes.session import first_line
from . import tflite, tflite_tail
from .candidate_builder import Rounding
from .keras_source import KerasSource
from .output_tail import told_tail
from .tflite_activations import TfliteValues
from .tflite_clipping import clipped_model
from .tflite_divisions import dividing
from .tflite_ranges import widen_zero_ranges
from .tflite_tail import own_name

_SAMPLES = 256
"""Samples that means come from."""


@dataclass(frozen=True)
class TfliteBuilder:
    """A `Builder` of .tflite files.

    Attributes:
        source: The model.
        calibration: One array per input, (n, ...).
        quantize: "int8", "int8-float-io" or "int16x8".
        allow_flex: Whether operations that TFLite lacks may stay TensorFlow's own.
        tail: Tensors whose operators stay in float in every file, as `own_name` calls them.
        method: How activations get their ranges: "minmax" or "mse".
        other: How else they might.
        kept: A folder for what its files share; None: each makes its own.
    """

    source: KerasSource
    calibration: tuple[Array, ...]
    quantize: Quantization = "int8"
    allow_flex: bool = False
    tail: tuple[str, ...] = ()
    method: CalibrationMethod = "minmax"
    other: CalibrationMethod | None = None
    kept: Path | None = None

    @property
    def suffix(self) -> str:
        """Of its files."""
        return ".tflite"

    def otherwise(self) -> TfliteBuilder | None:
        """Return a builder whose activations get their ranges in another way; None for no other."""
        return None if self.other is None else replace(self, method=self.other, other=None)

    def write(self, path: Path, in_float: Sequence[str] = ()) -> tuple[str, ...]:
        """Write the quantized file; one with layers in float takes and gives floats."""
        if in_float or self.tail:
            return self._mixed(path, in_float)
        return self._convert(path, self.quantize)

    def write_float(self, path: Path) -> None:
        """Write the same model in float32, of the operations of the quantized file."""
        if self.kept is None:
            self._convert(path, "none")
            return
        kept = self.kept / "float32.tflite"
        if not kept.exists():
            self._convert(kept, "none")
        shutil.copyfile(kept, path)

    def _convert(self, path: Path, quantize: Quantization) -> tuple[str, ...]:
        return tflite.convert(
            self.source,
            path,
            quantize,
            self.calibration,
            allow_flex=self.allow_flex,
            traced_for=self.quantize,
            ranges=self._ranges,
            kept=self.kept,
        )

    def _of(self, source: KerasSource, what: str) -> TfliteBuilder:
        """Return a builder of a changed model, which shares nothing with this one."""
        kept = None if self.kept is None else self.kept / what
        if kept is not None:
            kept.mkdir()
        return replace(self, source=source, kept=kept)

    @property
    def _ranges(self) -> Callable[[bytes], bytes] | None:
        """Return what changes the ranges that the converter measures; None where they stay."""
        if self.method == "minmax":
            return None
        return partial(
            clipped_model,
            inputs=tflite.input_tensor_names(self.source),
            outputs=self.source.output_names,
            samples=self.calibration,
        )

    def equalized(self) -> tuple[TfliteBuilder, tuple[str, ...]] | None:
        """Return a builder of the model with equal ranges inside its pairs; None without pairs."""
        try:
            new, notes = equalized(self.source.model, self.calibration)
        except InputError:  # no graph of stock layers: nothing to balance
            return None
        if new is self.source.model:
            return None
        return self._of(replace(self.source, model=new), "equalized"), notes

    def rounded(self, choose: Rounding) -> tuple[TfliteBuilder | None, str]:
        """Return a builder of the model with weights that round as chosen; None for no better."""
        new, told = choose(self.source, self.calibration)
        return None if new is None else self._of(new, "rounded"), told

    def with_float_tail(self, samples: Sequence[Array]) -> tuple[TfliteBuilder, str] | None:
        """A builder whose files have their last operators in float; None without mixed scales."""
        if self.quantize == "int16x8" or self.allow_flex:
            return None
        with tempfile.TemporaryDirectory() as name:
            full = Path(name) / "float32.tflite"
            self.write_float(full)
            tail = tflite_tail.tail_of(full, samples)
            if not tail.mixed:
                return None
            return replace(self, tail=tail.mixed), told_tail(_makers(full, tail.mixed))

    def with_float_divisions(self, samples: Sequence[Array]) -> tuple[TfliteBuilder, str] | None:
        """A builder whose divisions by what int8 rounds to 0 stay in float; None without any."""
        if self.quantize == "int16x8" or self.allow_flex:
            return None
        with tempfile.TemporaryDirectory() as name:
            full = Path(name) / "float32.tflite"
            self.write_float(full)
            file = TfliteValues(full)
            found = [own_name(file.tensor_name(one)) for one in dividing(full, samples)]
            if not found:
                return None
            told = f"divisors that int8 rounds to 0: {told_tail(_makers(full, found))}"
        return replace(self, tail=(*self.tail, *found)), told

    def corrected(self, full: Path, quantized: Path, path: Path) -> int:
        """Write the int8 file with biases that keep each channel's mean; how many changed.

        The mean of W·x + b is W·E x + b for a 1×1 convolution or a dense layer, so both files'
        means before the activation, which is inside the operator, come from those of its input.
        One layer after the other, each as the layers before it are by then.
        """
        samples = [array[:_SAMPLES] for array in self.calibration]
        original = TfliteValues(full)
        linear = TfliteValues(quantized).linear
        biases = [layer.bias for name, layer in linear.items() if name in original.linear]
        content = bytearray(with_own_buffers(quantized.read_bytes(), biases))
        path.write_bytes(content)
        changed = 0
        for name in [name for name in linear if name in original.linear]:
            file = TfliteValues(path)
            shift = _mean(original, name, samples) - _mean(file, name, samples)
            bias = file.linear[name].bias
            scales = file.scales(bias)
            values = file.stored(content, bias)
            if values is None or not len(scales):
                continue
            limits = np.iinfo(values.dtype)
            steps = values.astype(np.float64) + np.rint(shift / scales)
            values[:] = np.clip(steps, limits.min, limits.max).astype(values.dtype)
            path.write_bytes(content)
            changed += 1
        return changed

    def _mixed(self, path: Path, in_float: Sequence[str]) -> tuple[str, ...]:
        """Write the file with some layers in float, by TensorFlow's quantization debugger.

        Raises:
            InputError: If TensorFlow cannot quantize the model so.
        """
        if self.quantize == "int16x8" or self.allow_flex:
            raise InputError(
                "layers in float are for int8 .tflite files of TFLite's own operations.",
                "Leave --keep-float out, or use --quantize int8.",
                code="option-not-applicable",
            )
        tf = require("tensorflow", "keras", "to write .tflite files")
        try:
            with captured():
                debugger, layers, tail = self._debugger
                nodes = [layers[name] for name in in_float if name in layers]
                mixed = self._quantized(tf, debugger, [*nodes, *tail], floats=bool(in_float))
        except InputError:
            raise
        except Exception as error:  # what the converter raises depends on the stage
            raise InputError(
                f"TFLite cannot leave {', '.join(in_float)} in float: {first_line(error)}",
                "Leave --keep-float out, or export to .onnx.",
                code="not-quantizable",
            ) from error
        names = tflite.input_tensor_names(self.source)
        path.write_bytes(tflite.in_order(mixed, names, self.source.output_names))
        if self.quantize != "int8":
            return ()
        if not in_float:
            return ("with operators in float the file gives floats, not int8",)
        return ("with layers in float the file takes and gives floats, not int8",)

    def _quantized(self, tf: Any, debugger: Any, nodes: Sequence[str], *, floats: bool) -> bytes:
        """Return the calibrated model in int8 but for some nodes."""
        if self.quantize == "int8" and not floats:
            # The debugger itself has no option for inputs in int8.
            convert = require("tensorflow.lite.python.convert", "keras", "to write .tflite files")
            return bytes(
                convert.mlir_quantize(
                    debugger.calibrated_model,
                    fully_quantize=False,
                    input_data_type=tf.int8,
                    denylisted_nodes=nodes,
                )
            )
        debugger.options = tf.lite.experimental.QuantizationDebugOptions(denylisted_nodes=nodes)
        return bytes(debugger.get_nondebug_quantized_model())

    @cached_property
    def _debugger(self) -> tuple[Any, dict[str, str], list[str]]:
        """TensorFlow's debugger with the calibrated model, its names of layers, and of the tail."""
        tf = require("tensorflow", "keras", "to write .tflite files")
        names = tflite.input_tensor_names(self.source)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            saved = tflite.saved_model(tf, self.source, names, self.kept or folder, self.quantize)
            converter = tf.lite.TFLiteConverter.from_saved_model(str(saved))
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = partial(
                tflite.batch_by_batch, self.source, names, self.calibration
            )
            widen_zero_ranges(converter, self._ranges)
            debugger = tf.lite.experimental.QuantizationDebugger(
                converter=converter, debug_dataset=lambda: iter(())
            )
            plain = folder / "plain.tflite"
            plain.write_bytes(debugger.get_nondebug_quantized_model())
            file = TfliteValues(plain)
            layers = {key: layer.node for key, layer in file.names.items()}
            tail = [name for name in file.kinds() if own_name(name) in self.tail]
        return debugger, layers, tail


def _makers(path: Path, tensors: Sequence[str]) -> list[str]:
    """Return the operators of a file that make some tensors, each as often as it stands there."""
    file = TfliteValues(path)
    return [
        kind
        for kind, _, made in file.operators()
        if any(own_name(file.tensor_name(index)) in tensors for index in made)
    ]


def _mean(file: TfliteValues, name: str, samples: Sequence[Array]) -> Any:
    """E[W·x + b] of a layer, (N,)."""
    layer = file.linear[name]
    total: Any = 0.0
    parts = list(portions(samples, file.inputs[0].shape[0] or 1))
    for part in parts:
        values = file.read(part, layer.source)
        if values.ndim == 4:
            values = values[:, :: layer.strides[0], :: layer.strides[1]]
        total = total + np.asarray(values, np.float64).reshape(-1, values.shape[-1]).mean(axis=0)
    kernel, mean = file.constant(layer.kernel), total / len(parts)
    groups = mean.size // kernel.shape[1]  # a grouped convolution's kernel reads a part of them
    sums = kernel.reshape(groups, -1, kernel.shape[1]) @ mean.reshape(groups, -1, 1)
    return sums.reshape(-1) + file.constant(layer.bias)
