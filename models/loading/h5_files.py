"""HDF5 files of unknown origin, opened once a child process has read all of them."""

from __future__ import annotations

import json
from pathlib import Path

from dsconvert.base.child_process import run_python
from dsconvert.base.errors import InputError

_PROBE = Path(__file__).with_name("h5_probe.py")
_SECONDS, _BYTES = 12, 8 << 20
"""Seconds of CPU time for the start, and bytes for which there is one more: libhdf5 never comes to
the end of some damaged files."""
_MEMORY = 6 << 30
"""Address space of the child: libraries, and pieces of 16 MiB."""


def check_h5(path: Path, told: Path | None = None) -> int:
    """Refuse an HDF5 file that is damaged, refers to other files, or is larger than it stores.

    Args:
        path: The file.
        told: The file that messages name, where the other one is a part of it.

    Returns:
        How many values it holds.

    Raises:
        InputError: With the cause. A crash of the HDF5 library is one.
    """
    name = told or path
    seconds = _SECONDS + path.stat().st_size // _BYTES
    done = run_python([str(_PROBE), str(path)], computing=seconds, memory=_MEMORY)
    problem = done.failure
    if not problem:
        found = json.loads(done.stdout)
        problem = found["problem"]
        if not problem:
            return int(found["values"])
    elif done.returncode < 0:
        problem = f"the HDF5 library crashed on it: {problem}"
    raise InputError(
        f"{name} is damaged, or not a plain model file: {problem}.",
        "Copy or download it again, or save the model again where it was made.",
        code="damaged-file",
    )
