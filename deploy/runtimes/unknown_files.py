"""Files of unknown origin, opened here once a child process has run them.

LiteRT and ONNX Runtime trust a file: a wrong index ends the process, a wrong size takes all of the
memory. What this process wrote itself is known.
"""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import psutil

from dsconvert.base.child_process import run_python
from dsconvert.base.errors import InputError, MissingExtra, require
from dsconvert.base.files import written_here
from dsconvert.formats.onnx.open import load
from dsconvert.formats.onnx.sizes import check_sizes
from dsconvert.formats.tflite.checking import check_tflite

from .registry import LITERT, ORT
from .runtime import Runtime

_PROBE = Path(__file__).with_name("probe.py")
_SECONDS = 20
"""To load a file in, and one more for each so many bytes of it."""
_BYTES_PER_SECOND = 10 << 20
_MEMORY = 3 << 30
"""Address space of the child without the model: libraries and their threads."""
_NO_MEMORY = ("MemoryError", "bad_alloc", "bad allocation", "Failed to allocate memory")
_RUNTIMES = {".tflite": LITERT, ".onnx": ORT}


def check_runs_apart(path: Path) -> None:
    """Refuse a .tflite or .onnx file that is damaged, or ends the process that runs it.

    Args:
        path: The file; of another format, nothing is done. One that did run, or that this process
            wrote, is not run again.

    Raises:
        InputError: With what it did to the child process.
        MissingExtra: If what reads .tflite files is not installed.
    """
    runtime = _RUNTIMES.get(path.suffix.lower())
    if runtime is None or not path.is_file() or written_here(path):
        return
    if runtime is LITERT:
        require(LITERT.module, LITERT.extra, LITERT.purpose)
    elif not runtime.version:  # another runtime may run the file
        return
    else:
        with suppress(MissingExtra):  # a runtime may be installed without what reads the file
            check_sizes(load(path), path.parent, str(path))
    state = path.stat()
    problem = _problem(runtime, path.resolve(), state.st_mtime_ns, state.st_size)
    if problem:
        raise InputError(
            f"{path} is damaged: {problem}.",
            "Copy or download it again, or convert the model again.",
            code="file-crashes-runtime",
        )


@lru_cache(maxsize=64)
def _problem(runtime: Runtime, path: Path, changed: int, size: int) -> str:
    """Return what a child process died of; empty where it lived, or refused the file in words."""
    del changed  # tells one content of the path from the next
    free = psutil.virtual_memory().available
    if runtime is LITERT:
        memory = _MEMORY + min(3 * size + check_tflite(path), free)
    else:  # what it computes between its inputs and outputs is not declared
        memory = max(_MEMORY, free)
    seconds = _SECONDS + size // _BYTES_PER_SECOND
    done = run_python([str(_PROBE), runtime.module, str(path)], computing=seconds, memory=memory)
    if done.timed_out:
        running = "loaded" in done.stdout  # a large model may take its time
        return "" if running else f"it was not loaded within {seconds} s"
    if done.returncode < 0:
        return f"{runtime.title} crashed on it: {done.failure}"
    if done.returncode and any(words in done.stderr for words in _NO_MEMORY):
        return f"it asks for more memory than its {memory / 2**30:.1f} GiB"
    return ""
