"""The parts of a Keras 3 model: members of a .keras archive, or files of a folder.

`keras.saving.save_model(model, folder, zipped=False)` writes such a folder.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Protocol

from dsconvert.base.errors import InputError

from .saved_model import check_members

TEXTS = ("config.json", "metadata.json")
WEIGHTS = "model.weights"


class Parts(Protocol):
    """What a `zipfile.ZipFile` has of them."""

    def namelist(self) -> list[str]:
        """Return their names."""

    def read(self, name: str) -> bytes:
        """Return what one holds."""

    def open(self, name: str) -> IO[bytes]:
        """Open one."""


class _Folder:
    """The files of a folder."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def namelist(self) -> list[str]:
        """Return the names of its files."""
        return sorted(
            item.relative_to(self._path).as_posix()
            for item in self._path.rglob("*")
            if item.is_file()
        )

    def read(self, name: str) -> bytes:
        """Return what a file holds."""
        return (self._path / name).read_bytes()

    def open(self, name: str) -> IO[bytes]:
        """Open a file."""
        return (self._path / name).open("rb")


@contextmanager
def opened_parts(path: Path) -> Iterator[Parts]:
    """Open an archive or a folder.

    Raises:
        Exception: Whatever zipfile raises over a damaged archive.
    """
    if path.is_dir():
        yield _Folder(path)
        return
    with zipfile.ZipFile(path) as archive:
        yield archive


def is_keras_folder(path: Path) -> bool:
    """Tell whether a folder holds a model as Keras saves it without an archive."""
    return (path / TEXTS[0]).is_file() and any(path.glob(f"{WEIGHTS}*"))


def check_folder(path: Path) -> None:
    """Refuse a folder with links in it, which may lead to any file, or with pipes.

    Raises:
        InputError: With the first of them.
    """
    check_members(path)
    links = sorted(item for item in path.rglob("*") if item.is_symlink())
    if links:
        raise InputError(
            f"{links[0]} is a link.",
            # Caches of downloaded models hold such links.
            f"Copy the folder with what its links lead to: cp -rL {path} COPY",
            code="not-a-file",
        )


def is_part(name: str) -> bool:
    """Tell whether Keras reads a part; all others are ignored."""
    return name in TEXTS or name.startswith((WEIGHTS, "assets/"))
