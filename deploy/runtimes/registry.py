"""Which runtime runs which file; none of them imports TensorFlow."""

from __future__ import annotations

from pathlib import Path

from dsconvert.base.errors import InputError

from .litert import LiteRT
from .onnxruntime import OnnxRuntime
from .runtime import Runtime

_RUNTIMES: dict[str, type[Runtime]] = {".tflite": LiteRT, ".onnx": OnnxRuntime}
_KERAS = (".keras", ".h5", ".hdf5")


def runtime_for(path: Path) -> type[Runtime]:
    """The runtime for a file, by its suffix; the file is not opened.

    Raises:
        InputError: If the file does not exist or no runtime runs its format.
    """
    if path.suffix.lower() in _KERAS:
        raise InputError(
            f"{path} is a Keras model: the files to run are {' and '.join(_RUNTIMES)}.",
            f"Try: dsconvert export {path} -o {path.with_suffix('.tflite').name}",
        )
    if path.suffix.lower() not in _RUNTIMES:
        raise InputError(f"{path}: no runtime for this format, only {' and '.join(_RUNTIMES)}.")
    if not path.is_file():
        raise InputError(f"{path} does not exist or is no file.")
    return _RUNTIMES[path.suffix.lower()]


def open_runtime(path: str | Path, *, threads: int = 1) -> Runtime:
    """Load a .tflite or .onnx file to run it on this machine's CPU.

    Raises:
        InputError: If the file is missing, of another format, corrupt, or has inputs or outputs
            that are no numeric tensors.
        MissingExtra: If its runtime is not installed.
    """
    if threads < 1:
        raise InputError(f"threads must be 1 or more, got {threads}.")
    path = Path(path)
    return runtime_for(path)(path, threads)
