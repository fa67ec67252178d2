"""What dsconvert writes into a .keras archive beside the model, which Keras ignores."""

from __future__ import annotations

import zipfile
from pathlib import Path

NAME = "dsconvert.json"
"""The member's name."""
_MOST = 1 << 16


def write(path: Path, content: bytes) -> None:
    """Add the member to an archive that has none; files of other formats stay as they are.

    Args:
        path: A .keras or .h5 file.
        content: JSON.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(zipfile.ZipInfo(NAME), content)  # of 1980: the same file each time


def read(path: Path) -> bytes | None:
    """Return the member's bytes; None where there is none, or the file is no archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            if NAME in archive.namelist() and archive.getinfo(NAME).file_size <= _MOST:
                return archive.read(NAME)
    except (OSError, RuntimeError, NotImplementedError, ValueError, zipfile.BadZipFile):
        return None
    return None
