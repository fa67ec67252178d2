"""Arrays for all calibration images: in memory while they fit, then in temporary files."""

from __future__ import annotations

import mmap
import os
import tempfile
import weakref
from pathlib import Path
from typing import Any

import numpy as np

from dsconvert.base.errors import InputError
from dsconvert.base.predictor import Array


class Store:
    """Hands out float32 arrays and keeps the sum of those in memory below a limit.

    What does not fit is mapped to a file in a temporary folder, from which the operating system
    pages as it likes. Memory is given back when an array is dropped, files when the store closes.

    Args:
        memory: Bytes that may be held in memory.
    """

    def __init__(self, memory: int) -> None:
        self.memory = memory
        self.used = 0
        self.spilled = 0
        self._mapped: list[weakref.ref[Any]] = []
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def empty(self, shape: tuple[int, ...]) -> Array:
        """Return an uninitialised float32 array."""
        size = int(np.prod(shape, dtype=np.int64)) * 4
        if self.used + size <= self.memory:
            array: Array = np.empty(shape, np.float32)
            self.used += size
            weakref.finalize(array, self._give_back, size)
            return array
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="dsconvert-")
        path = Path(self._folder.name) / f"{self.spilled}.f32"
        _reserve(path, size)
        mapped = np.memmap(path, np.float32, "r+", shape=shape)
        path.unlink()  # the mapping keeps it alive, and nothing is left behind by a crash
        self.spilled += size
        self._mapped.append(weakref.ref(mapped))
        return mapped

    def settle(self) -> None:
        """Let go of the pages of what was spilled; the data stay in the file."""
        self._mapped = [reference for reference in self._mapped if reference() is not None]
        for reference in self._mapped:
            mapped: Any = reference()
            mapped._mmap.madvise(mmap.MADV_DONTNEED)

    def _give_back(self, size: int) -> None:
        self.used -= size

    def close(self) -> None:
        """Remove the temporary folder."""
        if self._folder is not None:
            self._folder.cleanup()


def _reserve(path: Path, size: int) -> None:
    """Take the room of a file on the disk, where the system can.

    A mapping of a file without that would end the process by a signal once the disk is full.

    Raises:
        InputError: If the disk has not so much room.
    """
    try:
        with path.open("wb") as file:
            if hasattr(os, "posix_fallocate") and size:
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)
    except OSError as error:
        raise InputError(
            f"cannot keep {size / 2**20:,.0f} MiB of activations in {path.parent}: "
            f"{error.strerror}.",
            "Free some space, name another folder with TMPDIR, give more --memory, or fewer "
            "samples.",
            code="not-writable",
        ) from error
