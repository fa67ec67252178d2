"""Keeping the chatter of native libraries off the terminal."""

from __future__ import annotations

import ctypes
import importlib
import logging
import os
import sys
import tempfile
import threading
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import IO, Any

logger = logging.getLogger(__name__)


class _Sink:
    """Where descriptors lead while somebody holds them: several threads may, in any order."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users: Counter[int] = Counter()
        self._originals: dict[int, int] = {}
        self._file: IO[bytes] | None = None
        self._watching = 0
        self._warned: list[warnings.WarningMessage] = []
        self._filters: warnings.catch_warnings[Any] | None = None

    def take(self, descriptors: Sequence[int], *, warned: bool) -> None:
        """Lead descriptors, and warnings if wished, here unless they do already."""
        with self._lock:
            if self._file is None:
                self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by the last user
            for descriptor in descriptors:
                if not self._users[descriptor]:
                    self._originals[descriptor] = os.dup(descriptor)
                    os.dup2(self._file.fileno(), descriptor)
                self._users[descriptor] += 1
            if warned and not self._watching:
                self._filters = warnings.catch_warnings(record=True)
                self._warned = self._filters.__enter__() or []
                warnings.simplefilter("always")
            self._watching += warned

    def give_back(self, descriptors: Sequence[int], *, warned: bool) -> Iterator[str]:
        """Let those that nobody else holds lead where they did; yield what came, at the end."""
        _flush_native()
        told: list[str] = []
        with self._lock:
            for descriptor in descriptors:
                self._users[descriptor] -= 1
                if not self._users[descriptor]:
                    original = self._originals.pop(descriptor)
                    os.dup2(original, descriptor)
                    os.close(original)
            if self._file is not None and not self._users.total():
                self._file.seek(0)
                told = self._file.read().decode(errors="replace").splitlines()
                self._file.close()
                self._file = None
            self._watching -= warned
            if warned and not self._watching and self._filters is not None:
                self._filters.__exit__(None, None, None)
                told += [f"{one.category.__name__}: {one.message}" for one in self._warned]
        yield from told


_sink = _Sink()


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
    _sink.take(descriptors, warned=True)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):
                stream.flush()
        for line in _sink.give_back(descriptors, warned=True):
            logger.debug("%s", line)


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
    _sink.take((2,), warned=False)
    try:
        return importlib.import_module(module)
    finally:
        list(_sink.give_back((2,), warned=False))  # nobody asked for it


def import_quietly(module: str) -> None:
    """Import a framework early; where it is missing, whoever needs it says so."""
    with suppress(ModuleNotFoundError, ValueError):  # Keras does not know its backend
        without_greeting(module)
