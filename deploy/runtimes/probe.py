"""Run in a child process: load a .tflite or .onnx file, and run it once if its sizes are fixed.

What native code does to this process is the answer. Nothing of dsconvert is imported, and numpy
with the runtime alone.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import numpy as np


def main(module: str, path: str) -> None:
    """Load the file, say so, and run it on zeros."""
    {"onnxruntime": _onnx}.get(module, _tflite)(import_module(module), path)


def _tflite(litert: Any, path: str) -> None:
    interpreter = litert.Interpreter(model_path=path, num_threads=1)
    inputs = interpreter.get_input_details()
    for details in inputs:
        signature = details.get("shape_signature", details["shape"])
        if len(signature) and min(signature) < 0:
            return  # free sizes are stored as 1, which the model may be unable to run
    interpreter.allocate_tensors()
    print("loaded", flush=True)  # noqa: T201 - what the parent reads
    for details in inputs:
        zeros = np.zeros(details["shape"], details["dtype"])
        interpreter.set_tensor(details["index"], zeros)
    interpreter.invoke()


def _onnx(ort: Any, path: str) -> None:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    print("loaded", flush=True)  # noqa: T201 - what the parent reads
    feed = {}
    for given in session.get_inputs():
        # A free first axis is the batch; another free size is not ours to choose.
        shape = [1 if not place and not isinstance(size, int) else size
                 for place, size in enumerate(given.shape)]  # fmt: skip
        kind = {"float": "float32", "double": "float64"}.get(given.type[7:-1], given.type[7:-1])
        if not all(isinstance(size, int) for size in shape) or kind == "string":
            return
        feed[given.name] = np.zeros(shape, kind)
    session.run(None, feed)


if __name__ == "__main__":
    main(*sys.argv[1:])
