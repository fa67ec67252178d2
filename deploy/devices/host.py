"""This machine as a device."""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from dsconvert.base.errors import InputError
from dsconvert.base.progress import Progress

from ..runner import emulation, machine
from ..runner.timing import time_in_rounds
from ..runtimes.litert import LiteRT
from ..runtimes.onnxruntime import OnnxRuntime
from ..runtimes.registry import open_runtime
from ..runtimes.runtime import Prepared, Runtime, first_line
from .device import Case, Job, Report, TimedFile
from .isolated import measure_isolated
from .operator_times import time_operators
from .records import DeviceInfo, MachineState, OperatorTime, Startup

_PACKAGES = {"litert": LiteRT.package, "ort": OnnxRuntime.package}


class HostDevice:
    """This machine.

    Load time, first run and peak memory come from a fresh process per file, latency from this
    process: the files take turns in rounds, in random order, so that all see the same
    disturbances and none always follows the same neighbour.
    """

    name = "host"

    def describe(self) -> DeviceInfo:
        """Say what it is; loads no runtime."""
        said: dict[str, Any] = machine.describe()
        return DeviceInfo(
            name=self.name, **said, runtimes=_versions(), emulated=emulation.is_emulated()
        )

    def measure(self, job: Job, progress: Progress) -> Report:
        """Measure; see `Device.measure`.

        Raises:
            InputError: If the cores cannot be chosen, or a file cannot be loaded.
            MissingExtra: If a runtime is not installed.
        """
        count = len(job.cases)
        with pinned(job.cpus), progress("Profiling", count + 1) as advance:
            before = _state(job.cpus)
            startups: list[Startup | str] = []
            for case in job.cases:
                startups.append(measure_isolated(case.path, case.inputs, job.threads))
                advance()
            runtimes = [open_runtime(case.path, threads=job.threads) for case in job.cases]
            prepared = [
                runtime.prepare(case.inputs)
                for runtime, case in zip(runtimes, job.cases, strict=True)
            ]
            failures = [_warm_up(one, job.warmup) for one in prepared]
            sound = [i for i, failure in enumerate(failures) if not failure]
            calls = [prepared[i].run for i in sound]
            times = time_in_rounds(calls, job.runs, job.min_seconds, job.seed)
            samples = dict(zip(sound, times, strict=True))
            after = _state(job.cpus)
            advance()
            files = [
                _timed(
                    case, job, runtimes[i], prepared[i], startups[i], samples.get(i), failures[i]
                )
                for i, case in enumerate(job.cases)
            ]
        return Report(self.describe(), before, after, tuple(files))


@contextmanager
def pinned(cpus: Sequence[int]) -> Iterator[None]:
    """Keep this thread, and the threads and processes that it starts, on these cores.

    Args:
        cpus: Their numbers; none for leaving everything as it is.

    Raises:
        InputError: If there is no such core for this process, or the system cannot do it.
    """
    if not cpus:
        yield
        return
    if not hasattr(os, "sched_setaffinity"):
        raise InputError("this operating system cannot keep a process on chosen cores.")
    allowed = os.sched_getaffinity(0)
    check_cpus(cpus, sorted(allowed))
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def check_cpus(cpus: Sequence[int], usable: Sequence[int]) -> None:
    """Check that there are such cores.

    Raises:
        InputError: If there are not.
    """
    missing = [str(cpu) for cpu in cpus if cpu not in usable]
    if missing:
        have = ", ".join(map(str, usable))
        raise InputError(f"there is no core {', '.join(missing)} to use; allowed: {have}.")


def _timed(
    case: Case,
    job: Job,
    runtime: Runtime,
    prepared: Prepared,
    startup: Startup | str,
    samples: Sequence[float] | None,
    failure: str,
) -> TimedFile:
    """One file's part of the report."""
    operators: tuple[OperatorTime, ...] | str = ()
    if job.per_op and samples:
        operators = time_operators(case, job.threads, statistics.median(samples))
    return TimedFile(
        runtime=runtime.name,
        runtime_version=runtime.version,
        startup=startup,
        samples_ms=samples or (),
        outputs=None if failure else prepared.read(),
        failure=failure,
        operators=operators,
        notes=_notes(runtime),
    )


def _notes(runtime: Runtime) -> tuple[str, ...]:
    """What a reader might take for granted and is not so."""
    if isinstance(runtime, LiteRT) and runtime.delegated is False:
        return ("XNNPACK took none of its operators over: LiteRT's own kernels were timed",)
    return ()


def _warm_up(prepared: Prepared, warmup: int) -> str:
    """Run untimed, at least once; give what went wrong, or an empty string."""
    try:
        for _ in range(max(1, warmup)):
            prepared.run()
    except Exception as error:  # the runtimes raise anything
        return first_line(error)
    return ""


def _state(cpus: Sequence[int]) -> MachineState:
    said: dict[str, Any] = machine.state(cpus)
    return MachineState(**said)


def _versions() -> dict[str, str]:
    found = {}
    for runtime, package in _PACKAGES.items():
        try:
            found[runtime] = version(package)
        except PackageNotFoundError:
            continue
    return found
