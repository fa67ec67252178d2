"""Whether this process runs on the processor it believes to run on."""

from __future__ import annotations

import sys
from pathlib import Path

_ROOT = Path("/")
_ELF = b"\x7fELF"


def is_emulated(root: Path = _ROOT, executable: str | None = None) -> bool:
    """Tell whether another program interprets this one's instructions, as qemu-user does.

    Such a program shows its guest the guest's own file as ``/proc/self/exe``, and the processor
    that it was told to be in ``/proc/cpuinfo``. It does not do so under ``/proc/thread-self``:
    there the kernel says what really runs, a program for another kind of processor than the
    guest's. On real machines both are one file, so that this cannot be wrong about them. A whole
    machine that is emulated is known by the name that QEMU gives its processor, where it gives one.

    Args:
        root: Where the file system starts.
        executable: This program; None for the Python that runs.
    """
    real = _machine(root / "proc/thread-self/exe")
    shown = {_machine(root / "proc/self/exe"), _machine(Path(executable or sys.executable or "-"))}
    if real is not None and shown - {real, None}:
        return True
    try:
        lines = (root / "proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return False
    return any("QEMU TCG CPU" in line for line in lines if line.startswith("model name"))


def _machine(path: Path) -> bytes | None:
    """Give the kind of processor that a program is for, with its word size; None if it is none."""
    try:
        with path.open("rb") as file:
            header = file.read(20)
    except OSError:
        return None
    return header[4:6] + header[18:20] if header[:4] == _ELF and len(header) == 20 else None
