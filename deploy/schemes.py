"""Quantization schemes: one record each, in one table.

A new scheme is one record here, its name in `formats.quantization.Quantization`, and for ONNX
files what
writes it in `exporting.writing`. Everything else asks the record: which formats have the scheme,
whether
calibration is needed, how the TFLite converter is set, how close the outputs must be, what is slow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dsconvert.base.output_fidelity import Tolerance
from dsconvert.formats.quantization import Format, Quantization

from .runtimes.precision import Precision

_BUILTINS = "TFLITE_BUILTINS"
_INT8_BUILTINS = "TFLITE_BUILTINS_INT8"
_INT16_BUILTINS = "EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8"
_INT8 = Tolerance(min_sqnr_db=10.0, floor=3 / 255, excused=0.9, half_step=1 / 512, labels=0.7)
"""Sound files reach 15 dB and more; broken ones (ranges from wrong data, saturated layers) fall
below 5. Three steps of an output that hardly changes are no error, nor is half a step of
a probability. Of labels, whose scores may be close to one another, ArgMax and NMS choose others in
5 to 20 % of the places in sound files; broken ones agree by chance, a kappa near 0."""
_SLOW_DYNAMIC = (
    "dynamic int8 is usually slower than float32 for convolutions, since activations are quantized "
    "anew in every run"
)
_SLOW_INT16 = "int16 activations are slow on CPUs, and meant for accelerators that have them"


@dataclass(frozen=True)
class Scheme:
    """One way in which a file stores its numbers.

    Attributes:
        name: As `--quantize` has it.
        formats: The file formats that have it.
        stores: The precision that a file of it is found to have.
        tolerance: How close each group of an output's channels must be to the model's.
        static: Whether ranges of activations are stored: calibration is needed.
        norms: Whether TFLite divides vectors of such integers by their norms in one operator.
        kernels: The TFLite converter's set of kernels.
        io: What a .tflite file takes and gives.
        timed: The formats in which a file is timed against float32, as it is often slower.
        slow: Why it is slow, in a sentence; empty if it is not by nature.
    """

    name: Quantization
    formats: tuple[Format, ...]
    stores: Precision
    tolerance: Tolerance
    static: bool = False
    norms: bool = False
    kernels: str = _BUILTINS
    io: Literal["float32", "int8", "int16"] = "float32"
    timed: tuple[Format, ...] = ()
    slow: str = ""


_BOTH: tuple[Format, ...] = ("tflite", "onnx")

SCHEMES: dict[Quantization, Scheme] = {
    scheme.name: scheme
    for scheme in (
        Scheme(
            "none",
            _BOTH,
            "float32",
            # The same arithmetic in another order: a relative error of 1e-3 is allowed, 1e-6 seen.
            Tolerance(min_sqnr_db=60.0, floor=1e-5, defect=0.01),
        ),
        Scheme(
            "float16",
            _BOTH,
            "float16",
            # Weights rounded by up to 2⁻¹¹ = 5e-4. A hundred times that is room for outputs that
            # nearly cancel, such as the steering angle of a regression (2e-2 was seen). A channel
            # that stands still is a sum that cancels: 2⁻¹⁸ of the state's peak was seen.
            Tolerance(min_sqnr_db=26.0, floor=2**-9, defect=0.02, labels=0.95, still=2**-14),
        ),
        Scheme("dynamic", _BOTH, "int8", _INT8, timed=("onnx",), slow=_SLOW_DYNAMIC),
        Scheme(
            "int8", _BOTH, "int8", _INT8,
            static=True, norms=True, kernels=_INT8_BUILTINS, io="int8", timed=("onnx",),
        ),
        Scheme(
            "int8-float-io", _BOTH, "int8", _INT8,
            static=True, norms=True, kernels=_INT8_BUILTINS, timed=("onnx",),
        ),
        Scheme(
            "int16x8",
            ("tflite",),
            "int8",
            # Only the weights are rounded coarsely: sound files reach 26 dB and more.
            Tolerance(min_sqnr_db=20.0, floor=1 / 255, half_step=2**-16, labels=0.8),
            static=True,
            kernels=_INT16_BUILTINS,
            io="int16",
            timed=("tflite",),
            slow=_SLOW_INT16,
        ),
    )
}  # fmt: skip


def allowed(format: Format) -> tuple[Quantization, ...]:
    """List the schemes that a format has."""
    return tuple(name for name, scheme in SCHEMES.items() if format in scheme.formats)
