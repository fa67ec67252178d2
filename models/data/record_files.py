"""What a file of records shows of itself."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

import numpy as np

from dsconvert.base.errors import InputError
from dsconvert.base.predictor import Array


@dataclass(frozen=True, slots=True)
class Record:
    """Where a record is.

    Attributes:
        file: The file that holds it.
        name: What to call it in a message: a member's name, or its number.
        start: Where its content begins, in bytes.
        size: How long its content is, in bytes.
        label: Where the content of its label is, and how long that is; None where the label, if
            there is one, is in the record.
    """

    file: Path
    name: str
    start: int
    size: int
    label: tuple[int, int] | None = None


class Records(Protocol):
    """A kind of files of records."""

    def list(self, file: Path) -> list[Record]:
        """Return the records of a file, in order, without reading their contents.

        Raises:
            InputError: If the file is damaged.
        """

    def sample(self, record: Record) -> bytes | Array:
        """Return an encoded image, or an array."""

    def label(self, record: Record) -> int | None:
        """Return the class, or None where there is none."""


def content(file: Path, start: int, size: int) -> bytes:
    """Read a part of a file.

    Raises:
        InputError: If it ends before.
    """
    with file.open("rb") as stream:
        stream.seek(start)
        found = stream.read(size)
    if len(found) < size:
        raise damaged(file, f"{size} bytes should be at {start}, {len(found)} are there")
    return found


def opened(sample: bytes | Array) -> IO[bytes]:
    """Return an encoded image as a stream; what is none is read as one, and so refused."""
    return io.BytesIO(sample if isinstance(sample, bytes) else np.asarray(sample).tobytes())


def damaged(file: Path, why: str, hint: str = "Copy or write it again.") -> InputError:
    """Return the error of a file of records that cannot be read."""
    return InputError(f"{file} cannot be read: {why}.", hint, code="data-unreadable")
