"""What a device is asked and what it answers.

A device measures; it decides nothing. `deploy.profiling.profile` opens the files here, makes the
inputs, asks the device, compares its outputs with this machine's, and makes the records.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dsconvert.base.predictor import Array
from dsconvert.base.progress import Progress, silent

from ..runner.timing import MAX_RUNS
from ..runtimes.tensor_info import TensorInfo
from .records import DeviceInfo, MachineState, OperatorTime, Startup

__all__ = [
    "Case",
    "Device",
    "DeviceInfo",
    "Job",
    "MachineState",
    "OperatorTime",
    "Report",
    "Startup",
    "TensorInfo",
    "TimedFile",
]


@dataclass(frozen=True)
class Case:
    """One file to measure.

    Attributes:
        path: The file, on this machine.
        runtime: The name of the runtime that runs it there.
        inputs: One real-valued array per input, of one invocation; `encode` with ``input_infos``
            makes of them what the file stores.
        input_infos: The file's inputs.
        output_infos: The file's outputs; `decode` makes real values of what the device stores.
    """

    path: Path
    runtime: str
    inputs: tuple[Array, ...]
    input_infos: tuple[TensorInfo, ...]
    output_infos: tuple[TensorInfo, ...]


@dataclass(frozen=True)
class Job:
    """What to measure, and how; the same for all its files.

    Attributes:
        cases: The files; their invocations take turns.
        threads: Of the runtime.
        cpus: The cores to run on, by number; empty for all.
        runs: Timed invocations per file, at least.
        warmup: Untimed invocations per file before.
        min_seconds: Time per file that the rounds last at least.
        seed: Of the order.
        per_op: Whether to time the operators of each file too, in runs of their own.
    """

    cases: tuple[Case, ...]
    threads: int = 1
    cpus: tuple[int, ...] = ()
    runs: int = 200
    warmup: int = 10
    min_seconds: float = 0.5
    seed: int = 0
    per_op: bool = False


@dataclass(frozen=True)
class TimedFile:
    """What a device found of one file.

    Attributes:
        runtime: The runtime that ran it, e.g. "LiteRT".
        runtime_version: Its version, as the device says it.
        startup: Loading and first run in a fresh process; a text says why there is none.
        samples_ms: Of every timed invocation. Sample i of every file is from the same round.
        outputs: Of the last run, real-valued; None where the device cannot give them.
        failure: Why there are no samples; empty if there are.
        operators: If the job asked for them; a text says why there are none.
        notes: What a reader of the figures should know.
    """

    runtime: str
    runtime_version: str
    startup: Startup | str
    samples_ms: Sequence[float] = ()
    outputs: tuple[Array, ...] | None = None
    failure: str = ""
    operators: tuple[OperatorTime, ...] | str = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """What a device found of a job.

    Attributes:
        info: What it is.
        before: How it was doing before.
        after: And after.
        files: One per case, in their order.
        notes: What a reader should know of all of it.
    """

    info: DeviceInfo
    before: MachineState
    after: MachineState
    files: tuple[TimedFile, ...]
    notes: tuple[str, ...] = ()


class Device(Protocol):
    """Something that runs files: this machine, a board, a phone.

    Attributes:
        name: What `--device` calls it.
    """

    @property
    def name(self) -> str:
        """Return what `--device` calls it."""
        ...

    def describe(self) -> DeviceInfo:
        """Say what it is.

        Raises:
            InputError: If it cannot be reached, with what to do.
        """
        ...

    def state(self) -> MachineState | None:
        """Say how it is doing now; None if it tells that only while it measures.

        Raises:
            InputError: If it cannot be reached, with what to do.
        """
        ...

    def measure_all(
        self,
        jobs: Sequence[Job],
        progress: Progress = silent,
        *,
        startup: bool = True,
        max_runs: int = MAX_RUNS,
    ) -> list[Report]:
        """Measure several jobs in one visit; the files of each take turns.

        A file that fails has a `TimedFile.failure`; the others have their figures.

        Args:
            jobs: Of the same settings but for ``min_seconds``.
            progress: Told of its steps.
            startup: Whether to load each file in a process of its own first.
            max_runs: Timed invocations of a file after which no round is begun for time's sake.

        Returns:
            One report per job, in their order.

        Raises:
            InputError: If it cannot be reached, or lacks what the jobs need, with what to do.
        """
        ...

    async def visit(
        self,
        jobs: Sequence[Job],
        progress: Progress = silent,
        *,
        startup: bool = True,
        max_runs: int = MAX_RUNS,
    ) -> list[Report]:
        """Do as `measure_all` does, beside visits to other devices."""
        ...
