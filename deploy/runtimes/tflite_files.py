"""Files of unknown origin for LiteRT, opened here once a child process has run them.

LiteRT trusts a file: a wrong index ends the process, a wrong size takes all of the memory.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import psutil

from dsconvert.base.child_process import run_python
from dsconvert.base.errors import InputError, require
from dsconvert.formats.tflite.checking import check_tflite

from .registry import LITERT

_PROBE = Path(__file__).with_name("tflite_probe.py")
_SECONDS = 20
_MEMORY = 3 << 30
"""Address space of the child without the model: libraries and their threads."""


def check_runs_apart(path: Path) -> None:
    """Refuse a .tflite file that is damaged, or ends the process that runs it.

    Args:
        path: The file; of another format, nothing is done. One that did run is not run again.

    Raises:
        InputError: With what it did to the child process.
        MissingExtra: If LiteRT is not installed.
    """
    if path.suffix.lower() != ".tflite" or not path.is_file():
        return
    require(LITERT.module, LITERT.extra, LITERT.purpose)
    state = path.stat()
    problem = _problem(path.resolve(), state.st_mtime_ns, state.st_size)
    if problem:
        raise InputError(
            f"{path} is damaged: {problem}.",
            "Copy or download it again, or convert the model again.",
            code="file-crashes-runtime",
        )


@lru_cache(maxsize=64)
def _problem(path: Path, changed: int, size: int) -> str:
    """Return what a child process died of; empty where it lived, or refused the file in words."""
    del changed  # tells one content of the path from the next
    activations = check_tflite(path)
    free = psutil.virtual_memory().available
    memory = _MEMORY + min(3 * size + activations, free)
    done = run_python([str(_PROBE), LITERT.module, str(path)], timeout=_SECONDS, memory=memory)
    if done.timed_out:
        running = "loaded" in done.stdout  # a large model may take its time
        return "" if running else f"it was not loaded within {_SECONDS} s"
    if done.returncode < 0:
        return f"{LITERT.title} crashed on it: {done.failure}"
    if (done.returncode and "MemoryError" in done.stderr) or "bad_alloc" in done.stderr:
        return f"it asks for more memory than its {memory / 2**30:.1f} GiB"
    return ""
