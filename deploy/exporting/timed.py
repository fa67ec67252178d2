"""Whole networks as .tflite files that are only timed, in a third of the time of `export`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from dsconvert.base.errors import require
from dsconvert.base.predictor import Array
from dsconvert.formats.quantization import Quantization
from dsconvert.models.parts import parts_of

from ..schemes import SCHEMES
from .equal_forms import equal_forms
from .export import export
from .keras_source import KerasSource, read_source
from .tflite import converted


def write_timed(
    model: Any, path: Path, quantize: Quantization, calibration: Sequence[Array]
) -> None:
    """Write a .tflite file of the operators that `export` gives the model; nothing is verified.

    A SavedModel that is written and read again takes most of an export's time. It is left out where
    nothing needs it: a network of one input of a fixed size, for samples one by one. Its outputs
    have no names then.

    Args:
        model: A `keras.Model`.
        path: Where to write; what is there is replaced.
        quantize: How to store weights and activations.
        calibration: One array per input, (n, ...).

    Raises:
        InputError: If the model cannot be converted.
    """
    content = _directly(read_source(model, calibration, alone=True), quantize, calibration)
    if content is not None:
        path.write_bytes(content)
        return
    export(model, path, quantize=quantize, calibration=calibration, overwrite=True, gate=False)


def _directly(
    source: KerasSource, quantize: Quantization, calibration: Sequence[Array]
) -> bytes | None:
    """Return the file; None where it takes an export to write it, or to say why there is none."""
    static = SCHEMES[quantize].static
    if len(source.inputs) > 1 or source.free_inputs or source.batch > 1:
        return None
    if static and any(_is_recurrent(layer) for layer in parts_of(source.model)):
        return None  # TensorFlow's calibrator crashes on loops
    images = np.asarray(calibration[0], source.inputs[0].dtype)
    with suppress(Exception), equal_forms(source.model, "tflite", quantize):
        return converted(source.model, quantize, images)
    return None


def _is_recurrent(layer: Any) -> bool:
    keras = require("keras", "keras", "to write .tflite files")
    return isinstance(layer, keras.layers.RNN)
