"""Boards without Python: TFLite's own `benchmark_model`, built for them, runs the files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dsconvert.base.errors import InputError
from dsconvert.base.progress import Progress

from . import linux_files
from .benchmark_model import NAME, RUNTIME
from .benchmark_turns import measure_in_turns, version_of
from .device import DeviceInfo, Job, Report
from .elf import architecture
from .sync_link import Linked

_RUNS = {
    "aarch64": ("aarch64", "arm"),
    "armv7l": ("arm",),
    "armv6l": ("arm",),
    "x86_64": ("x86_64", "x86"),
    "i686": ("x86",),
    "riscv64": ("riscv64",),
}
"""What programs a kernel of ``uname -m`` starts, by `architecture`."""


def describe(machine: Linked, binary: Path) -> DeviceInfo:
    """Return what the board is.

    Raises:
        InputError: If the program is none for it.
    """
    answer = machine.script(linux_files.ASK).text
    info = linux_files.describe(answer, machine.serial, {NAME: version_of(binary)})
    made_for = architecture(binary)
    if made_for not in _RUNS.get(info.architecture, (made_for,)):
        raise InputError(
            f"{binary} is for {made_for}; {machine.serial} is {info.architecture}.",
            f"Name a {NAME} that was built for {info.architecture}.",
            code="wrong-processor",
        )
    return info


def check(jobs: Sequence[Job], binary: Path) -> None:
    """Check what needs no board.

    Raises:
        InputError: If there is no such program, or a file is none for it.
    """
    if not binary.is_file():
        raise InputError(f"{binary} does not exist or is no file.", code="program-not-found")
    for job in jobs:
        for case in job.cases:
            if case.runtime != RUNTIME:
                raise InputError(
                    f"{case.path}: {NAME} runs .tflite files only.",
                    "Leave --benchmark-binary out for .onnx files.",
                    code="runtime-not-on-device",
                )


def measure(machine: Linked, folder: str, binary: Path, job: Job, progress: Progress) -> Report:
    """Measure as on phones: a process per file and round, the files in turns.

    Args:
        machine: The board.
        folder: Our folder there.
        binary: The program, here.
        job: What to measure.
        progress: Told of a step per process.

    Raises:
        InputError: If the program does not start there.
    """
    return measure_in_turns(
        machine,
        folder,
        binary,
        job,
        progress,
        info=describe(machine, binary),
        state=lambda: linux_files.state(machine.script(linux_files.ASK).text, job.cpus),
        better="~ (as TMPDIR there)",
    )
