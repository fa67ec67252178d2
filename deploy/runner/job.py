"""What lies in a job's folder: ``job.json`` and what it names; later ``report.json``.

::

    job.json      {"schema", "threads", "cpus", "runs", "warmup", "min_seconds", "max_runs", "seed",
                   "per_op", "startup",
                   "groups": [[{"file", "runtime", "names", "inputs", "outputs"}]]}
    report.json   {"schema", "done", "before", "after", "groups": [[record]]}

Paths are relative to the folder, or absolute. The files of a group take turns; groups come one
after the other. The record of a file has the fields of a `deploy.devices.device.TimedFile` that are
known already, and ``outputs`` says whether they have been written.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

JOB, REPORT = "dsconvert.job/1", "dsconvert.report/1"


class File(NamedTuple):
    """One file of a job.

    Attributes:
        path: The model.
        runtime: One of `engines.RUNTIMES`.
        names: Of its inputs, as its signature calls them.
        inputs: An .npz with its inputs in their order, as it stores them.
        outputs: Where its outputs go, as .npz.
    """

    path: Path
    runtime: str
    names: list[str]
    inputs: Path
    outputs: Path


class RunnerJob(NamedTuple):
    """A job as it lies in a folder; see `dsconvert.deploy.devices.device.Job`.

    Attributes:
        min_seconds: Per group: time per file that its rounds last at least.
        startup: Whether each file is also loaded and run once in a process of its own.
        max_runs: Timed invocations of each file after which no round is begun for time's sake.
    """

    folder: Path
    groups: list[list[File]]
    threads: int
    cpus: list[int]
    runs: int
    warmup: int
    min_seconds: list[float]
    max_runs: int
    seed: int
    per_op: bool
    startup: bool


class RunnerRefused(Exception):
    """The job cannot be done at all; its text says why."""


def read_job(folder: Path) -> RunnerJob:
    """Return the job in a folder.

    Raises:
        RunnerRefused: If it is of another version.
        OSError: If it is not there.
    """
    said = json.loads((folder / "job.json").read_text())
    if said["schema"] != JOB:
        raise RunnerRefused(f"the job is a {said['schema']}, this is for {JOB}")
    groups = [
        [
            File(
                folder / one["file"],
                one["runtime"],
                one["names"],
                folder / one["inputs"],
                folder / one["outputs"],
            )
            for one in group
        ]
        for group in said["groups"]
    ]
    fields = {name: said[name] for name in RunnerJob._fields if name not in ("folder", "groups")}
    return RunnerJob(folder=folder, groups=groups, **fields)


class RunnerReport:
    """The report of a job, written anew whenever something has been found.

    Attributes:
        records: One per file, in the job's groups.
    """

    def __init__(self, job: RunnerJob) -> None:
        self._path = job.folder / "report.json"
        self._state: dict[str, Any] = {"schema": REPORT, "done": False, "before": {}, "after": {}}
        self.records: list[list[dict[str, Any]]] = [[{} for _ in group] for group in job.groups]

    def say(self, **fields: Any) -> None:
        """Set fields of the whole report, and write it.

        It takes the place of the one before at once: whoever reads it finds a whole one.

        Raises:
            OSError: If it cannot be written.
        """
        self._state.update(fields)
        temporary = self._path.with_suffix(".new")
        temporary.write_text(json.dumps({**self._state, "groups": self.records}))
        temporary.replace(self._path)
