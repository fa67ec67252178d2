"""Ranges of activations, changed after they are measured and before they are written.

TensorFlow's converter does both in one step; this looks in between. Ranges of zero are widened: a
scale of zero is a file that LiteRT cannot prepare, and XNNPACK ends the process over it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from dsconvert.base.errors import require
from dsconvert.formats.layer_names import layer_name

from .tflite_shared_ranges import shared_ranges

_ZERO = 1e-30
"""The calibrator gives zeros the range 0 … 1.2e-38, the least normal number of float32."""


def widen_zero_ranges(
    converter: Any,
    choose: Callable[[bytes], bytes] | None = None,
    kept: Path | None = None,
) -> list[str]:
    """Let a `tf.lite.TFLiteConverter` widen ranges of zero when it converts.

    Args:
        converter: It is changed.
        choose: Returns the calibrated model with other ranges than the measured ones; of int8
            alone.
        kept: Holds the calibrated model once one of these converters has made it, so that the next
            one has not to run the samples again; of int8 alone.

    Returns:
        A list that holds the names of the tensors whose range was widened, once it has converted.
    """
    convert = require("tensorflow.lite.python.convert", "keras", "to write .tflite files")
    tf = require("tensorflow", "keras", "to write .tflite files")
    names: list[str] = []
    quantize = converter._quantize

    def quantize_widened(
        model: Any, given: Any, made: Any, activations: Any, *more: Any, **options: Any
    ) -> Any:
        if activations == tf.int16:  # measured and written in one step of native code
            return quantize(model, given, made, activations, *more, **options)
        asked = converter._experimental_calibrate_only
        if kept is not None and kept.exists():
            calibrated = kept.read_bytes()
        else:
            converter._experimental_calibrate_only = True
            try:
                calibrated = quantize(model, given, made, activations, *more, **options)
            finally:
                converter._experimental_calibrate_only = asked
            if kept is not None:
                kept.write_bytes(calibrated)
        widened, found = widened_model(calibrated)
        names.extend(name for name in found if name not in names)
        widened = shared_ranges(widened if choose is None else choose(widened))
        if asked:
            return widened
        return convert.mlir_quantize(
            widened,
            converter._experimental_disable_per_channel,
            input_data_type=given,
            output_data_type=made,
        )

    converter._quantize = quantize_widened
    return names


def widened_model(calibrated: bytes) -> tuple[bytes, list[str]]:
    """Return a calibrated .tflite model without ranges of zero, and the tensors that had one.

    Zero is exact on any scale. A narrow range would ask for a factor that no kernel has between
    the scales before and after it, so the widest of the model's ranges is taken.
    """
    schema = require("ai_edge_litert.schema_py_generated", "keras", "to write .tflite files")
    content = bytearray(calibrated)
    model = schema.Model.GetRootAs(content)
    zero, widest = [], 0.0
    for i in range(model.SubgraphsLength()):
        graph = model.Subgraphs(i)
        for j in range(graph.TensorsLength()):
            tensor = graph.Tensors(j)
            quantization = tensor.Quantization()
            if quantization is None or quantization.MaxLength() != 1:
                continue
            low, high = quantization.MinAsNumpy(), quantization.MaxAsNumpy()
            size = float(max(abs(low[0]), abs(high[0])))
            widest = max(widest, size)
            if size <= _ZERO:
                zero.append((tensor.Name().decode(), low, high))
    for _, low, high in zero:
        low[:], high[:] = 0.0, widest or 1.0
    return (bytes(content) if zero else calibrated), [name for name, _, _ in zero]


def zero_note(names: list[str]) -> tuple[str, ...]:
    """Say which layers gave zeros only; nothing where none did."""
    layers = dict.fromkeys(map(layer_name, names))
    if not layers:
        return ()
    return (
        f"zero on all calibration images, with a range that is a guess: {', '.join(layers)}; check "
        "the preprocessing",
    )
