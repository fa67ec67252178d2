"""Keeping the chatter of native libraries off the terminal."""

from __future__ import annotations

import ctypes
import importlib
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType

logger = logging.getLogger(__name__)


@contextmanager
def captured(descriptors: Sequence[int] = (1, 2)) -> Iterator[None]:
    """Send what the block prints or warns, native code included, to the log at DEBUG.

    TensorFlow and LiteRT write to the file descriptors 1 and 2 themselves, below `sys.stdout`,
    so the descriptors are redirected: for the whole process, other threads included. Chatter that
    a full disk does not take is dropped.

    Args:
        descriptors: Those of stdout, stderr or both. A progress bar draws on stderr meanwhile.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    with tempfile.TemporaryFile() as sink, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        saved = {descriptor: os.dup(descriptor) for descriptor in descriptors}
        for descriptor in saved:
            os.dup2(sink.fileno(), descriptor)
        try:
            yield
        finally:
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError):
                    stream.flush()
            _flush_native()
            for descriptor, original in saved.items():
                os.dup2(original, descriptor)
                os.close(original)
            sink.seek(0)
            for line in sink.read().decode(errors="replace").splitlines():
                logger.debug("%s", line)
            for warning in warned:
                logger.debug("%s: %s", warning.category.__name__, warning.message)


def _flush_native() -> None:
    """Write what C's `printf` still holds: into a pipe or a file it writes at the end only."""
    with suppress(OSError, TypeError, AttributeError):  # Windows names its C library otherwise
        ctypes.CDLL(None).fflush(None)


def without_greeting(module: str) -> ModuleType:
    """Import a framework that greets on the file descriptor of stderr, without the greeting.

    Raises:
        ModuleNotFoundError: If it, or what it imports, is not installed.
    """
    if module in sys.modules or logging.getLogger().level <= logging.DEBUG:
        return importlib.import_module(module)
    sys.stderr.flush()
    saved = os.dup(2)
    with Path(os.devnull).open("w") as sink:
        os.dup2(sink.fileno(), 2)
        try:
            return importlib.import_module(module)
        finally:
            os.dup2(saved, 2)
            os.close(saved)


def import_quietly(module: str) -> None:
    """Import a framework early; where it is missing, whoever needs it says so."""
    with suppress(ModuleNotFoundError):
        without_greeting(module)
