"""Run in a child process: load a .tflite file, and run it once where its sizes are fixed.

What native code does to this process is the answer. Nothing of dsconvert is imported, and numpy
with the interpreter alone.
"""

from __future__ import annotations

import sys
from importlib import import_module

import numpy as np


def main(module: str, path: str) -> None:
    """Load the file, say so, and run it on zeros."""
    interpreter = import_module(module).Interpreter(model_path=path, num_threads=1)
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


if __name__ == "__main__":
    main(*sys.argv[1:])
