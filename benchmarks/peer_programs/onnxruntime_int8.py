"""ONNX Runtime's quantize_static, QDQ, per channel: FLOAT.onnx IMAGES.npy OUT.onnx."""

import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

source, images, out = sys.argv[1:]


class Images(CalibrationDataReader):
    """One image at a time."""

    def __init__(self, name: str) -> None:
        self.left = iter([{name: image[None]} for image in np.load(images)])

    def get_next(self):
        return next(self.left, None)


with tempfile.TemporaryDirectory() as folder:
    prepared = str(Path(folder) / "prepared.onnx")
    quant_pre_process(source, prepared)
    reader = Images(onnx.load(source).graph.input[0].name)
    kinds = {"activation_type": QuantType.QInt8, "weight_type": QuantType.QInt8}
    quantize_static(prepared, out, reader, quant_format=QuantFormat.QDQ, per_channel=True, **kinds)
