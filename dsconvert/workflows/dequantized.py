"""How far a dequantized model is from the quantized one that it was read from."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dsconvert.base.predictor import Array
    from dsconvert.formats.onnx.open import OnnxFile

    from .model_files import ModelFile


FLOAT_FORM = "the float32 form of a quantized or half-precision file"
"""What a dequantized model is called in records."""
_RANGES = (("0 … 1", 0.25, 0.5), ("mean 0", 1.0, 0.0), ("0 … 255", 64.0, 128.0))
"""Names of ranges of images, with the scale and shift that make them of normal numbers."""


def told_loss(file: OnnxFile) -> str:
    """Say how close the outputs are to those of the quantized file, on random inputs.

    Which range of values a model is made for does not stand in its file. On another one its own
    quantization loses more, so that of three ranges the best is told.

    Args:
        file: The file, with its float model.

    Raises:
        InputError: If the float model does not run.
    """
    from dsconvert.base.errors import InputError
    from dsconvert.deploy.runtimes.registry import open_runtime
    from dsconvert.deploy.runtimes.samples import random_samples
    from dsconvert.formats.onnx.save import save

    with tempfile.TemporaryDirectory(prefix="dsconvert-") as place:
        path = Path(place) / "float.onnx"
        save(file.model, file.path.parent, path, overwrite=True)
        ours = open_runtime(path)
        arrays = random_samples(ours.inputs, 0)
        sets = {
            name: [x * scale + shift if x.dtype.kind == "f" else x for x in arrays]
            for name, scale, shift in _RANGES
        }
        outputs = {name: ours.predict(inputs) for name, inputs in sets.items()}
    try:
        theirs = open_runtime(file.path)
        expected = {name: theirs.predict(inputs) for name, inputs in sets.items()}
    except InputError as error:
        said = error.message.replace(str(file.path), "the file")
        return f"dequantized to float32; how close it is to the quantized model is unknown: {said}"
    found = {name: _decibels(expected[name], outputs[name]) for name in sets}
    found = {name: decibels for name, decibels in found.items() if not math.isnan(decibels)}
    if not found:
        return (
            "dequantized to float32; how close it is to the quantized model is unknown: its "
            "outputs are not finite on random inputs"
        )
    best = max(found, key=lambda name: found[name])
    if math.isinf(found[best]):
        return "dequantized to float32; on random inputs its outputs are those of the file"
    return (
        f"dequantized to float32; SQNR {found[best]:.1f} dB to the quantized model on random "
        f"inputs of {best}: compare both on your images with dsconvert verify"
    )


def refuse_quantized(opened: ModelFile) -> None:
    """Refuse a quantized or half-precision .onnx file where files of a float model are made.

    Raises:
        InputError: If it is one that was not read as float.
    """
    if opened.kind == "onnx":
        from dsconvert.deploy.exporting.onnx_source import refuse_quantized as refuse

        refuse(opened.model.graph, opened.told)


def stands_for_floats(path: Path) -> bool:
    """Tell whether a file is an .onnx file that some commands take with --dequantize alone."""
    from dsconvert.base.errors import InputError

    from .model_files import kind_of

    if kind_of(path) != "onnx":
        return False
    from dsconvert.deploy.exporting.onnx_source import refuse_quantized as refuse
    from dsconvert.formats.onnx.open import load

    try:
        refuse(load(path).graph, path)
    except InputError as error:
        return error.code == "quantized-already"
    return False


def _decibels(expected: Sequence[Array], outputs: Sequence[Array]) -> float:
    """Return the SQNR of the worst output, in dB."""
    import numpy as np

    from dsconvert.base.fidelity import relative_error

    errors = [relative_error(*pair) for pair in zip(expected, outputs, strict=True)]
    worst = float(np.max(errors, initial=0.0))  # NaN if one is
    return math.inf if worst == 0 else -20 * math.log10(worst)
