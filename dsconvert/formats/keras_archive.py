"""What dsconvert writes into a Keras file beside the model, which Keras ignores.

In a .keras file a member of the archive, in an .h5 file an attribute of its root.
"""

from __future__ import annotations

import mmap
import re
import shutil
import zipfile
from contextlib import suppress
from pathlib import Path

NAME = "dsconvert.json"
"""The member's name."""
ATTRIBUTE = "dsconvert"
"""The attribute's name."""
_MOST = 1 << 16
_CONFIG = "config.json"
_METADATA = "metadata.json"
_SHARED = re.compile(rb'("shared_object_id": )(\d+)')
_DATE = re.compile(rb'("date_saved": ")[^"]*')
_HDF5 = b"\x89HDF\r\n\x1a\n"


def write(path: Path, content: bytes) -> None:
    """Add the member, or the attribute, to a file that has none; others stay as they are.

    Args:
        path: A .keras or .h5 file.
        content: JSON.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(zipfile.ZipInfo(NAME), content)  # of 1980: the same file each time
    elif is_hdf5(path):
        import h5py

        with suppress(OSError), h5py.File(path, "r+") as file:
            file.attrs[ATTRIBUTE] = content.decode()


def make_repeatable(path: Path) -> None:
    """Take out of a .keras file what Keras makes different each time.

    That are dates, and the addresses by which layers share objects; equal models are equal files.

    Args:
        path: A file that Keras wrote; nothing is done to other formats.
    """
    if not zipfile.is_zipfile(path):
        return
    written = path.with_name(f"{path.name}.again")
    try:
        with zipfile.ZipFile(path) as old, zipfile.ZipFile(written, "w") as new:
            for member in old.infolist():
                plain = zipfile.ZipInfo(member.filename)  # of 1980
                plain.file_size = member.file_size  # tells whether the sizes need 64 bits
                with old.open(member) as source, new.open(plain, "w") as target:
                    if member.filename == _CONFIG:
                        target.write(_numbered(source.read()))
                    elif member.filename == _METADATA:
                        target.write(_DATE.sub(rb"\g<1>1980-01-01@00:00:00", source.read()))
                    else:
                        shutil.copyfileobj(source, target)
        written.replace(path)
    finally:
        written.unlink(missing_ok=True)


def _numbered(config: bytes) -> bytes:
    """Return a configuration with shared objects numbered in the order of their first use."""
    numbers: dict[bytes, int] = {}

    def number(found: re.Match[bytes]) -> bytes:
        return found[1] + str(numbers.setdefault(found[2], len(numbers) + 1)).encode()

    return _SHARED.sub(number, config)


def is_hdf5(path: Path) -> bool:
    """Tell whether a file begins as HDF5 does."""
    with suppress(OSError), path.open("rb") as file:
        return file.read(len(_HDF5)) == _HDF5
    return False


def may_hold_attribute(path: Path) -> bool:
    """Tell whether an HDF5 file may hold what dsconvert writes, without opening it as one."""
    with suppress(OSError, ValueError), path.open("rb") as file:
        if file.read(len(_HDF5)) == _HDF5:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return content.find(ATTRIBUTE.encode()) >= 0
    return False


def read(path: Path) -> bytes | None:
    """Return what was written; None where there is nothing, or the file is of another format.

    Args:
        path: A file; an .h5 file must have been looked at, as a damaged one can end the process.
    """
    if is_hdf5(path):
        return _read_attribute(path)
    try:
        with zipfile.ZipFile(path) as archive:
            if NAME in archive.namelist() and archive.getinfo(NAME).file_size <= _MOST:
                return archive.read(NAME)
    except (OSError, RuntimeError, NotImplementedError, ValueError, zipfile.BadZipFile):
        return None
    return None


def _read_attribute(path: Path) -> bytes | None:
    import h5py

    with suppress(OSError, RuntimeError, KeyError, ValueError, TypeError):
        with h5py.File(path, "r") as file:
            found = file.attrs.get(ATTRIBUTE)
        if isinstance(found, str) and len(found) <= _MOST:
            return found.encode()
    return None
