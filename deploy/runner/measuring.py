"""Does a job: every file in processes of its own, the invocations of a group in turns in one."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from . import engines, machine
from .child import Send, in_child
from .job import File, RunnerJob, RunnerRefused, RunnerReport
from .loaded import Engine, LoadedFile, OperatorRuns
from .timing import time_in_rounds

_MIB = 2**20
_LINE = 300
_OPERATOR_RUNS = 200
_FEWEST, _SECONDS = 10, 10.0
"""Of a large file, as many as take so long, at least so many."""
_PATIENCE = 10
"""How many times as long as planned a profiler may take, and a minute to load the file."""
Record = dict[str, Any]
Step = Callable[[], None]


def measure(job: RunnerJob, attached: bool, step: Step) -> None:
    """Do a job, and write its report whenever something is known.

    Args:
        job: What to measure.
        attached: Whether to stop when standard input ends.
        step: Is called when a file has been loaded alone, and when the runs of a file are done.

    Raises:
        RunnerRefused: If it cannot be done at all.
        HungUp: If standard input has ended.
        Stopped: If a line came from there.
        OSError: If the report cannot be written.
    """
    _pin(job.cpus)
    report = RunnerReport(job)
    report.say(before=machine.state(job.cpus))
    log = job.folder / "log.txt"

    def run(work: Callable[[Send], None]) -> Iterator[Record]:
        return in_child(work, log, attached)

    for files, records, seconds in zip(job.groups, report.records, job.min_seconds):
        for file, record in zip(files, records):
            if job.startup:
                _record_start(run, file, job, record)
                report.say()
                step()
        _record_rounds(run, files, records, job, seconds)
        report.say()
        for file, record in zip(files, records):
            if job.per_op and not record.get("failure"):
                _record_operators(run, file, job, record)
                report.say()
            step()
    report.say(done=True, after=machine.state(job.cpus))


def _pin(cpus: Sequence[int]) -> None:
    """Keep this process, and all that it starts, on these cores."""
    if not cpus:
        return
    usable = machine.usable_cpus()
    if not usable:
        raise RunnerRefused("this system does not let a process choose its cores")
    absent = [str(cpu) for cpu in cpus if cpu not in usable]
    if absent:
        raise RunnerRefused(f"there is no core {', '.join(absent)}; there are {_text(usable)}")
    os.sched_setaffinity(0, cpus)


def _text(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def _record_start(run: Any, file: File, job: RunnerJob, record: Record) -> None:
    """Load and run a file once; if that kills the process, the file is left out of the rounds."""
    for message in run(lambda send: send(_started(file, job))):
        if "died" in message:
            record["startup"] = record["failure"] = message["died"]
        else:
            record.update(message)


def _started(file: File, job: RunnerJob) -> Record:
    """Return what a fresh process finds; that an error is one, the rounds will say too."""
    try:
        engines.load(file.runtime)
        arrays = _read(file.inputs)
        before = machine.resident_bytes() or 0
        start = time.perf_counter_ns()
        opened = engines.open_file(file.runtime, str(file.path), job.threads)
        loaded = time.perf_counter_ns()
        engine = opened.prepare(arrays)
        ready = time.perf_counter_ns()
        engine.run()
        done = time.perf_counter_ns()
    except Exception as error:  # the runtimes raise anything
        return {"startup": first_line(error)}
    peak = machine.peak_bytes()
    if peak is None:
        return {"startup": "the system does not say how much memory a process uses"}
    return {
        "startup": {
            "load_ms": (loaded - start) / 1e6,
            "first_run_ms": (done - ready) / 1e6,
            "peak_memory_mib": peak / _MIB,
            "memory_increase_mib": max(0, peak - before) / _MIB,
        }
    }


def _record_rounds(
    run: Any,
    files: Sequence[File],
    records: Sequence[Record],
    job: RunnerJob,
    seconds: float,
    together: bool = True,
) -> None:
    """Time the files that have not failed, again without whatever kills the process."""
    while True:
        left = [i for i in range(len(files)) if not records[i].get("failure")]
        if not left:
            return
        at, died = None, ""
        for message in run(lambda send, left=left: _rounds(send, files, left, job, seconds)):
            if "died" in message:
                died = message["died"]
            elif "at" in message:
                at = message["at"]
            else:
                records[message.pop("file")].update(message)
        if not died:
            return
        if at is None:  # in the rounds: it may be any of them
            at = left[0] if len(left) == 1 else None
        if at is None and together:
            _find_killers(run, files, records, left, job)
            together = False
            continue
        for i in left if at is None else [at]:
            records[i]["failure"] = died if at is not None else f"timed with the others, {died}"


def _find_killers(
    run: Any, files: Sequence[File], records: Sequence[Record], left: Iterable[int], job: RunnerJob
) -> None:
    """Run each file alone, so that those that cannot be timed are known; keep no times."""
    for i in left:
        alone: list[Record] = [{}]
        _record_rounds(run, [files[i]], alone, job, 0.0, together=False)
        if alone[0].get("failure"):
            records[i]["failure"] = alone[0]["failure"]


def _rounds(
    send: Send, files: Sequence[File], left: Sequence[int], job: RunnerJob, seconds: float
) -> None:
    """In the child: load and warm up each file, time them in turns, keep their outputs.

    ``{"at": i}`` says which file it is busy with, None which are all of them.
    """
    ready: list[tuple[int, LoadedFile, Engine]] = []
    for i in left:  # what is opened owns what runs
        send({"at": i})
        file = files[i]
        send({"file": i, **_runtime_of(file.runtime)})
        try:
            opened = engines.open_file(file.runtime, str(file.path), job.threads)
            engine = opened.prepare(_read(file.inputs))
            for _ in range(max(1, job.warmup)):
                engine.run()
        except Exception as error:  # the runtimes raise anything
            send({"file": i, "failure": first_line(error)})
            continue
        ready.append((i, opened, engine))
    send({"at": None})
    calls = [engine.run for _, _, engine in ready]
    times = time_in_rounds(calls, job.runs, seconds, job.seed, max_runs=job.max_runs)
    for (i, opened, engine), samples in zip(ready, times):
        said = {"notes": opened.notes(), "samples_ms": samples}
        send({"file": i, **_answered(engine, files[i]), **said})


def _runtime_of(runtime: str) -> Record:
    found = engines.installed(runtime)
    return {
        "runtime": engines.RUNTIMES[runtime].title,
        "runtime_version": found[1] if found else "",
    }


def _answered(engine: Engine, file: File) -> Record:
    """Keep the outputs of the last run."""
    import numpy as np

    arrays = engine.read()
    try:
        np.savez(file.outputs, *arrays)
    except OSError as error:  # of numpy's own making for a full disk: it has no number
        with contextlib.suppress(OSError):
            file.outputs.unlink()
        full = shutil.disk_usage(file.outputs.parent).free < 2 * sum(one.nbytes for one in arrays)
        why = "no space is left on the device" if full else first_line(error)
        return {"outputs": False, "failure": f"its outputs cannot be written: {why}"}
    return {"outputs": True}


def _record_operators(run: Any, file: File, job: RunnerJob, record: Record) -> None:
    """Time the operators in a process of its own: a profiler may bring it down."""
    invocation_ms = statistics.median(record["samples_ms"])
    for message in run(lambda send: send(_operators(file, job, invocation_ms))):
        died = f"unavailable: {message['died']}" if "died" in message else ""
        record["operators"] = message.get("operators", died)


def _operators(file: File, job: RunnerJob, invocation_ms: float) -> Record:
    """In the child: the time of each operator, or why there is none.

    The profilers slow the invocations, so no latency comes from here.
    """
    runs = operator_runs(invocation_ms)
    if hasattr(signal, "alarm"):  # which ends this process
        signal.alarm(60 + int(_PATIENCE * runs * invocation_ms / 1e3))
    asked = OperatorRuns(
        path=str(file.path),
        names=file.names,
        arrays=_read(file.inputs),
        threads=job.threads,
        runs=runs,
        folder=str(job.folder),
    )
    try:
        found = engines.time_operators(file.runtime, asked)
    except Exception as error:  # the runtimes raise anything
        return {"operators": f"unavailable: {first_line(error)}"}
    total = sum(one.p50_ms for one in found) or 1.0
    return {"operators": [{**one._asdict(), "share": one.p50_ms / total} for one in found]}


def operator_runs(invocation_ms: float) -> int:
    """Return the invocations of a file in which its operators are timed."""
    return max(_FEWEST, min(_OPERATOR_RUNS, int(1e3 * _SECONDS / max(invocation_ms, 1e-3))))


def _read(path: Path) -> list[Any]:
    """Return the arrays of an .npz in their order: contiguous, as the runtimes want them."""
    import numpy as np

    with np.load(path) as arrays:
        return [np.ascontiguousarray(arrays[name]) for name in arrays.files]


def first_line(error: BaseException) -> str:
    """Return an error's first line."""
    lines = str(error).strip().splitlines()
    return lines[0][:_LINE] if lines else type(error).__name__
