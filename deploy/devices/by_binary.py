"""Boards without Python: TFLite's own `benchmark_model`, built for them, runs the files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dsconvert.converter.core.errors import InputError
from dsconvert.converter.core.progress import Progress

from . import linux_files
from .benchmark_model import NAME
from .benchmark_turns import PROCESS_S, ROUNDS, Turns, install, timed, version_of
from .device import DeviceInfo, Job, Report
from .elf import architecture
from .linked import Linked

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
    """What the board is.

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
        )
    return info


def check(jobs: Sequence[Job], binary: Path) -> None:
    """Check what needs no board.

    Raises:
        InputError: If there is no such program, or a file is none for it.
    """
    if not binary.is_file():
        raise InputError(f"{binary} does not exist or is no file.")
    for job in jobs:
        for case in job.cases:
            if case.runtime != "litert":
                raise InputError(
                    f"{case.path}: {NAME} runs .tflite files only.",
                    "Leave --benchmark-binary out for .onnx files.",
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
    info = describe(machine, binary)
    rounds = min(ROUNDS, job.runs)
    steps = len(job.cases) * (1 + rounds + job.per_op)
    with progress(f"Measuring on {machine.serial}", steps) as advance:
        program = install(machine, binary, folder, "~ (as TMPDIR there)")
        turns = Turns(machine, program, folder, job, rounds, PROCESS_S)
        before = linux_files.state(machine.script(linux_files.ASK).text, job.cpus)
        files = [turns.bring(case, i) for i, case in enumerate(job.cases)]
        for file in files:
            turns.start_up(file)
            advance()
        turns.rounds(files, advance)
        if job.per_op:
            for file in files:
                turns.operators(file)
                advance()
        after = linux_files.state(machine.script(linux_files.ASK).text, job.cpus)
    return Report(
        info=info,
        before=before,
        after=after,
        files=tuple(timed(file, version_of(binary)) for file in files),
        notes=(
            f"{rounds} processes of {NAME} per file in turns; a sample is one process: the "
            "median of its invocations, or their average where it prints no median",
            f"{NAME} prints no version: it is known by the hash of the file",
        ),
    )
