"""The runtimes, and which of them runs which file; none of them imports TensorFlow.

To add one: a record here, a file with its `Session`, and a record in the runner's table, which
boards need. Nothing here imports numpy or a runtime: the command line reads the names.
"""

from __future__ import annotations

from collections.abc import Collection
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from dsconvert.base.errors import InputError

from ..runner.engines import RUNTIMES as _RUNNERS
from .runtime import OpenFile, Precision, Runtime

if TYPE_CHECKING:
    from .session import Session

_KERAS = (".keras", ".h5", ".hdf5")


def _runtime(
    name: str,
    session: str,
    *suffixes: str,
    extra: str,
    tested: str,
    precisions: tuple[Precision, ...] = ("float32", "float16", "int8"),
) -> Runtime:
    """The record of a runtime that the runner knows; ``session`` is "module:Class" of its file."""
    runner = _RUNNERS[name]
    module, packages = runner.modules[0]
    return Runtime(
        name=name,
        title=runner.title,
        suffixes=suffixes,
        packages=packages,
        module=module,
        extra=extra,
        tested=tested,
        precisions=precisions,
        open=_late(session),
    )


def _late(session: str) -> OpenFile:
    """Return a function that imports a `Session` when a file is opened."""
    module, _, cls = session.partition(":")

    def open_file(path: Path, threads: int) -> Session:
        opened: Session = getattr(import_module(f".{module}", __package__), cls)(path, threads)
        return opened

    return open_file


LITERT = _runtime("litert", "litert:LiteRTSession", ".tflite", extra="keras", tested="2.3")
ORT = _runtime("ort", "onnxruntime:OnnxRuntimeSession", ".onnx", extra="onnx", tested="1.32")
OPENVINO = _runtime(
    "openvino", "openvino:OpenVinoSession", ".onnx", ".tflite", extra="openvino", tested="2026.4"
)
RUNTIMES = {runtime.name: runtime for runtime in (LITERT, ORT, OPENVINO)}
"""By name; of those that run a file, the first is its default."""
SUFFIXES = tuple(dict.fromkeys(suffix for one in RUNTIMES.values() for suffix in one.suffixes))
"""Of all files that can be run."""


def find_runtime(name: str) -> Runtime:
    """Return the runtime of this name.

    Raises:
        InputError: If there is none.
    """
    if name not in RUNTIMES:
        raise InputError(
            f"unknown runtime {name!r}; allowed: {', '.join(RUNTIMES)}.", code="unknown-runtime"
        )
    return RUNTIMES[name]


def default_runtime(suffix: str, among: Collection[str] = ()) -> Runtime | None:
    """Return the first runtime that runs files of a suffix; None if there is none.

    Args:
        suffix: With its dot, e.g. ".onnx".
        among: Names of the runtimes to choose from; empty for all.
    """
    for runtime in RUNTIMES.values():
        if suffix.lower() in runtime.suffixes and (not among or runtime.name in among):
            return runtime
    return None


def runtime_for(path: Path, name: str | None = None) -> Runtime:
    """Return the runtime for a file, by its suffix; the file is not opened.

    Args:
        path: The file.
        name: The runtime that shall run it; None for the default of its format.

    Raises:
        InputError: If the file does not exist, no runtime runs its format, or this one does not.
    """
    folder = (path / "saved_model.pb").is_file()
    if folder or path.suffix.lower() in _KERAS:
        kind = "SavedModel" if folder else "Keras model"
        raise InputError(
            f"{path} is a {kind}: the files to run are {' and '.join(SUFFIXES)}.",
            f"Try: dsconvert export {path} -o {path.with_suffix('.tflite').name}",
            code="keras-file",
        )
    default = default_runtime(path.suffix)
    if default is None:
        raise InputError(
            f"{path}: no runtime for this format, only {' and '.join(SUFFIXES)}.",
            code="unknown-format",
        )
    runtime = default if name is None else find_runtime(name)
    if not path.is_file():
        raise InputError(f"{path} does not exist or is no file.", code="file-not-found")
    if not runtime.runs(path):
        raise InputError(
            f"{path}: {runtime.name} runs {' and '.join(runtime.suffixes)} files only, "
            f"{default.title} runs this.",
            "Leave --runtime out, or name files of one format.",
            code="runtime-not-for-file",
        )
    return runtime


def reference_runtime(path: Path, *names: str) -> Runtime:
    """Return the runtime that tells what a file takes and gives, for those that run it elsewhere.

    Args:
        path: The file.
        names: The runtimes that are to run it; those that do not run its format are passed over.

    Returns:
        The default of the file's format if it is installed here, else the first of the named ones.

    Raises:
        InputError: As `runtime_for`.
    """
    default = runtime_for(path)
    named = (one for one in map(find_runtime, names) if one.runs(path))
    return default if default.version else next(named, default)


def open_runtime(path: str | Path, *, threads: int = 1, runtime: str | None = None) -> Session:
    """Load a .tflite or .onnx file to run it on this machine's CPU.

    Args:
        path: The file.
        threads: For one invocation.
        runtime: The runtime to run it in; None for the default of its format.

    Raises:
        InputError: If the file is missing, of another format, corrupt, or has inputs or outputs
            that are no numeric tensors; if there is no such runtime, or it does not run the format.
        MissingExtra: If its runtime is not installed.
    """
    if threads < 1:
        raise InputError(f"threads must be 1 or more, got {threads}.", code="bad-threads")
    path = Path(path)
    return runtime_for(path, runtime).open(path, threads)
