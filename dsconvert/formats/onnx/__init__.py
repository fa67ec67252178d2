"""ONNX files: graphs, tensors, checking, saving."""
