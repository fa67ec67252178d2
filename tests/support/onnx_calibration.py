"""Images as ONNX Runtime's quantizer reads them."""

from __future__ import annotations

from onnxruntime.quantization.calibrate import CalibrationDataReader


class Reader(CalibrationDataReader):
    """Gives images one after the other to the input x.

    Args:
        images: (n, C, H, W).
    """

    def __init__(self, images):
        self.rows = iter(images)

    def get_next(self):
        row = next(self.rows, None)
        return None if row is None else {"x": row[None]}
