"""Tar shards as webdataset writes them: KEY.jpg and KEY.cls are one sample."""

from __future__ import annotations

import tarfile
from pathlib import Path, PurePosixPath

from dsconvert.base.predictor import Array

from .images import SUFFIXES
from .record_files import Record, content, damaged
from .sources import decode_array

_ARRAY, _LABEL = ".npy", ".cls"
_BLOCK = 512
"""Members begin at multiples of it, and a block of zeros follows the last."""
_DIGITS = 18
"""That a class may have: int64 holds any number of so many."""


class TarShards:
    """Members of one key, the name up to its first dot: an image or .npy, and .cls with a class."""

    def list(self, file: Path) -> list[Record]:
        """Return the samples; members of other kinds are passed over."""
        end, found = 0, dict[str, tarfile.TarInfo]()
        labels: dict[str, tarfile.TarInfo] = {}
        try:
            with tarfile.open(file, "r:") as archive:
                for member in archive:
                    end = member.offset_data + -(-member.size // _BLOCK) * _BLOCK
                    if not member.isreg():
                        continue
                    if member.issparse():
                        raise damaged(
                            file, f"{member.name} is stored without its zeros, as tar -S does"
                        )
                    path = PurePosixPath(member.name)
                    stem, suffix = path.name.split(".", 1) if "." in path.name else (path.name, "")
                    key, kind = str(path.with_name(stem)), f".{suffix.lower()}"
                    if kind == _LABEL:
                        labels[key] = member
                    elif kind in SUFFIXES or kind == _ARRAY:
                        found[key] = member
        except (tarfile.TarError, OSError, ValueError) as error:
            raise damaged(file, str(error)) from error
        if content(file, end, _BLOCK) != bytes(_BLOCK):  # tarfile reads past a header cut short
            raise damaged(file, f"no block of zeros ends it at {end}")
        return [
            Record(
                file,
                member.name,
                member.offset_data,
                member.size,
                (labels[key].offset_data, labels[key].size) if key in labels else None,
            )
            for key, member in found.items()
        ]

    def sample(self, record: Record) -> bytes | Array:
        """Return an encoded image, or the array of an .npy member."""
        data = content(record.file, record.start, record.size)
        if not record.name.lower().endswith(_ARRAY):
            return data
        return decode_array(data, f"{record.name} of {record.file}")

    def label(self, record: Record) -> int | None:
        """Return the number that the .cls member holds."""
        if record.label is None:
            return None
        text = content(record.file, *record.label).decode("ascii", "replace").strip()
        if not text.isdigit() or len(text) > _DIGITS:
            raise damaged(record.file, f"the .cls of {record.name} is {text[:20]!r}, no class")
        return int(text)
