"""Which files can be made in which way, decided before any work."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from dsconvert.base.errors import InputError
from dsconvert.formats.quantization import CalibrationMethod, Format, Quantization

from ..schemes import SCHEMES, allowed
from .improve import OFF, Improvement

RangeChoice = CalibrationMethod | Literal["auto"]
"""How activations get their ranges; "auto": by minmax, or by mse where that gives outputs of higher
SQNR."""
_OF_TFLITE = ("auto", "minmax", "mse")
"""Those of them that .tflite files know."""


@dataclass(frozen=True)
class Options:
    """How a file is made.

    Attributes:
        quantize: How weights and activations are stored.
        method: How activations get their ranges.
        allow_flex: Whether a .tflite file may keep TensorFlow's own operations.
        keep_io: Whether a float16 .onnx file has float32 inputs and outputs.
        improvement: What is tried to make an int8 file better.
    """

    quantize: Quantization
    method: RangeChoice = "auto"
    allow_flex: bool = False
    keep_io: bool = True
    improvement: Improvement = OFF

    def check(self, format: Format) -> None:
        """Refuse what the format does not have.

        Raises:
            InputError: With the option and where it belongs.
        """
        methods = ("auto", *get_args(CalibrationMethod))
        if self.method not in methods:
            raise InputError(
                f"there is no calibration method {self.method!r}.",
                f"Allowed: {', '.join(methods)}.",
                code="unknown-calibration-method",
            )
        static = SCHEMES[self.quantize].static and self.quantize != "int16x8"
        for wrong, option, where in (
            (
                format == "tflite" and self.method not in _OF_TFLITE,
                f"--calibration-method {self.method}",
                "int8 .onnx files",
            ),
            (self.method != "auto" and not static, "--calibration-method", "int8 files"),
            (
                self.method == "mse" and self.allow_flex,
                "--calibration-method mse",
                "files of TFLite's own operations",
            ),
            (self.allow_flex and format != "tflite", "--allow-flex", ".tflite files"),
            (
                not self.keep_io and (format, self.quantize) != ("onnx", "float16"),
                "--no-keep-io",
                "float16 .onnx files",
            ),
        ):
            if wrong:
                raise InputError(
                    f"{option} is for {where}, and this is {self.quantize} .{format}.",
                    f"Leave {option} out.",
                    code="option-not-applicable",
                )


def checked_format(
    path: Path, format: Format | None, quantize: Quantization, original: Path | None = None
) -> Format:
    """Return the format to write.

    Args:
        path: The file to write.
        format: The format wanted, if one was named.
        quantize: How to store weights and activations.
        original: The .onnx file to make it of; None for a Keras model.

    Raises:
        InputError: If the suffix names none or another, or it cannot be quantized so.
    """
    suffix = path.suffix.lower().removeprefix(".")
    known = {name: name for name in get_args(Format)}
    if suffix not in known or (format is not None and suffix != format):
        wanted = f".{format}" if format in known else " or ".join(f".{name}" for name in known)
        raise InputError(
            f"cannot export to {path}: the file name must end in {wanted}.", code="wrong-suffix"
        )
    chosen: Format = known[suffix]
    if quantize not in allowed(chosen):
        raise InputError(
            f"cannot write {path} with quantization {quantize!r}: "
            f".{chosen} allows {', '.join(allowed(chosen))}.",
            "ONNX Runtime has no 16-bit integer convolution for CPUs: take int8, or .tflite."
            if (chosen, quantize) == ("onnx", "int16x8")
            else "",
            code="quantization-not-possible",
        )
    if original is None:
        return chosen
    if original.suffix.lower() != ".onnx":
        raise InputError(
            f"{original} is no .onnx file.",
            "Load it, and give the keras.Model.",
            code="like-is-not-onnx",
        )
    if chosen == "tflite":
        raise InputError(
            f"{original} is an ONNX file, which becomes a .tflite file by way of Keras.",
            "Give import_onnx(path).model of dsconvert.models, or use the command line.",
            code="like-is-onnx",
        )
    if path.exists() and path.samefile(original):
        raise InputError(f"{path} is the model itself.", "Name another file.", code="same-file")
    return chosen
