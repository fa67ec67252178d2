"""Exports to TFLite and ONNX, with quantization."""
