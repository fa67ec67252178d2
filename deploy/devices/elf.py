"""What a Linux program is made for, by its header."""

from __future__ import annotations

import struct
from pathlib import Path

from dsconvert.base.errors import InputError

_MACHINES = {
    (1, 3): "x86",
    (1, 8): "mips",
    (1, 40): "arm",
    (1, 243): "riscv32",
    (2, 62): "x86_64",
    (2, 183): "aarch64",
    (2, 243): "riscv64",
}
"""By ELF class (1: 32 bit, 2: 64 bit) and e_machine."""
_ABIS = {
    "arm64-v8a": "aarch64",
    "armeabi-v7a": "arm",
    "armeabi": "arm",
    "x86_64": "x86_64",
    "x86": "x86",
    "riscv64": "riscv64",
}


def architecture(path: Path) -> str:
    """Return the architecture that a program runs on, e.g. "aarch64".

    Raises:
        InputError: If it is no ELF file, or one for a processor that nobody profiles on.
    """
    try:
        with path.open("rb") as file:
            head = file.read(20)
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror}.", code="program-not-found"
        ) from error
    if len(head) < 20 or not head.startswith(b"\x7fELF"):
        raise InputError(
            f"{path} is no Linux program (ELF file).",
            "Name benchmark_model itself, not an .apk or an archive that holds it.",
            code="not-a-program",
        )
    (machine,) = struct.unpack_from("<H" if head[5] == 1 else ">H", head, 18)
    found = _MACHINES.get((head[4], machine))
    if found is None:
        raise InputError(
            f"{path} is a program for a processor of ELF number {machine}.", code="wrong-processor"
        )
    return found


def architecture_of_abi(abi: str) -> str:
    """Return what Android calls "arm64-v8a" is "aarch64"; unknown names stay."""
    return _ABIS.get(abi, abi)
