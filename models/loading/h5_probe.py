"""Read an HDF5 file once, in a process of its own: ``python h5_probe.py FILE``.

libhdf5 can crash on a damaged file, and an HDF5 file can refer to other files. This script reads
everything that a loader would read and prints ``{"problem": "…", "values": …}`` in JSON: an empty
text for a file that can be read, and how many values its datasets hold. It imports h5py only.
"""

from __future__ import annotations

import json
import sys
from typing import Any

_UNSTORED = 1 << 20
"""Bytes that a dataset may have without being stored: HDF5 fills them in."""
_DEFLATE = 1100
"""The best that deflate reaches, a little above 1,032 : 1."""
_PIECE = 16 << 20


def problem_of(path: str) -> tuple[str, int]:
    """Return what is wrong with a file, in a phrase, empty if nothing is; and its values."""
    values: list[int] = []
    return _problem(path, values), sum(values)


def _problem(path: str, values: list[int]) -> str:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return _group(file, "", set(), values)
    except (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        return f"it cannot be read ({_first_line(error)})"
    except MemoryError:
        return "it takes more memory than its size explains"


def _group(group: Any, where: str, seen: set[Any], values: list[int]) -> str:
    """Look at the attributes and all that is in a group; count the values."""
    import h5py

    list(group.attrs.items())
    for name in group:
        path = f"{where}/{name}"
        link = group.get(name, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            return f"{path} is a link to another file, {link.filename!r}"
        if isinstance(link, h5py.SoftLink):
            return f"{path} is a link to another place, {link.path!r}"
        item = group[name]
        address = h5py.h5o.get_info(item.id).addr
        if address in seen:
            continue
        seen.add(address)
        if isinstance(item, h5py.Group):
            found = _group(item, path, seen, values)
        elif isinstance(item, h5py.Dataset):
            found = _dataset(item, path)
            values.append(int(item.size or 0))
        else:
            found = ""
        if found:
            return found
    return ""


def _dataset(dataset: Any, path: str) -> str:
    """Look at one dataset before reading it, then read it piece by piece."""
    list(dataset.attrs.items())
    if dataset.external:
        return f"{path} keeps its values in another file, {dataset.external[0][0]!r}"
    if dataset.is_virtual:
        return f"{path} is made of datasets of other files"
    stored = dataset.id.get_storage_size()
    size = dataset.size * dataset.dtype.itemsize
    if size > stored * (_DEFLATE if dataset.compression else 1) + _UNSTORED:
        return f"{path} is {dataset.shape} and takes {size:,} bytes, of which {stored:,} are stored"
    if dataset.ndim == 0 or size <= _PIECE:
        dataset[()]
        return ""
    rows = max(1, _PIECE * dataset.shape[0] // size)
    for first in range(0, dataset.shape[0], rows):
        dataset[first : first + rows]
    return ""


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


if __name__ == "__main__":
    problem, values = problem_of(sys.argv[1])
    print(json.dumps({"problem": problem, "values": values}))  # noqa: T201 - its result
