"""Names of file formats and of the ways in which a file stores its numbers."""

from __future__ import annotations

from typing import Literal

Format = Literal["tflite", "onnx"]


Quantization = Literal["none", "float16", "dynamic", "int8", "int8-float-io", "int16x8"]


CalibrationMethod = Literal["minmax", "entropy", "percentile", "mse"]


VerifiedOn = Literal["verification data", "calibration data", "random inputs", "nothing"]
