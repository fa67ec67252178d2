"""The runtimes that the runner can use, by the names that jobs give them.

They are loaded by whatever package brings them. Inputs and outputs are as the file stores them: the
machine that sends the job knows the scales.
"""

from __future__ import annotations

from importlib import import_module, metadata
from importlib.util import find_spec
from typing import Any

from . import litert_engine, openvino_engine, ort_engine
from .loaded import LoadedFile, OperatorRuns, RunnerRuntime
from .operators import OperatorMedian

RUNTIMES: dict[str, RunnerRuntime] = {
    "litert": litert_engine.RUNTIME,
    "ort": ort_engine.RUNTIME,
    "openvino": openvino_engine.RUNTIME,
}


def installed(runtime: str) -> tuple[str, str] | None:
    """The module that brings a runtime, and its version; None if there is none. Loads nothing."""
    modules = RUNTIMES[runtime].modules
    for module, packages in modules:
        if _is_there(module):
            versions = (_version(package) for package in packages)
            found = next(filter(None, versions), "of unknown version")
            usual = module == modules[0][0]
            return module, found if usual else f"{found} ({module.partition('.')[0]})"
    return None


def load(runtime: str) -> Any:
    """Import a runtime, which is not loading a file.

    Raises:
        ImportError: If there is none, or it does not work here.
    """
    found = installed(runtime)
    if found is None:
        raise ImportError(f"no {RUNTIMES[runtime].title} is installed")
    return import_module(found[0])


def open_file(runtime: str, path: str, threads: int) -> LoadedFile:
    """Load a file.

    Args:
        runtime: One of `RUNTIMES`.
        path: The file.
        threads: For one invocation.

    Raises:
        Exception: Whatever the runtime raises; RuntimeError if it runs elsewhere than asked.
    """
    return RUNTIMES[runtime].open(load(runtime), path, threads)


def time_operators(runtime: str, asked: OperatorRuns) -> list[OperatorMedian]:
    """Time a file's operators.

    Raises:
        Exception: Whatever the runtime or its profiler raises.
    """
    return RUNTIMES[runtime].operators(load(runtime), asked)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):  # the package that it would be in is missing or broken
        return False
