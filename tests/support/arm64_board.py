"""A board with an Arm processor, emulated: where tests/arm64/setup.sh has been run, as root."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from local_board import local_board

from dsconvert.deploy.devices.board import BoardDevice

EMULATOR = "qemu-aarch64-static"
_BOUND = 'mount --bind "$0" /proc/cpuinfo && exec "$@"'


def tree() -> Path:
    """The folder that tests/arm64/setup.sh fills; conftest.py knows the default."""
    return Path(os.environ["DSCONVERT_ARM64"])


def obstacle() -> str:
    """Why there is no such board here; empty if there is one."""
    if shutil.which(EMULATOR) is None:
        return f"needs {EMULATOR}: apt-get install qemu-user-static"
    if not (tree() / "complete").exists():
        return f"needs the arm64 tree: tests/arm64/setup.sh makes it in {tree()}"
    probe = ["unshare", "-m", "sh", "-c", _BOUND, str(tree() / "cpuinfo"), "true"]
    if shutil.which("unshare") is None or subprocess.run(probe, capture_output=True).returncode:
        return "needs root, to bind a file over /proc/cpuinfo in a mount namespace of its own"
    return ""


def arm64_board(folder: Path, **options) -> BoardDevice:
    """The board; its temporary files go to ``folder``."""
    root = tree()
    python = str(root / "tree/usr/bin/python3.11")

    def wrap(command: list[str]) -> list[str]:
        if command[0] != python:
            return command
        bound = ["unshare", "-m", "sh", "-c", _BOUND, str(root / "cpuinfo")]
        return [*bound, EMULATOR, "-cpu", "cortex-a72", *command]

    environment = {
        "QEMU_LD_PREFIX": str(root / "tree"),
        "PYTHONHOME": str(root / "tree/usr"),
        "PYTHONPATH": str(root / "packages"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return local_board(
        "arm64", python=python, folder=folder, wrap=wrap, environment=environment, **options
    )
