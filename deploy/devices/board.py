"""A board with Linux and Python: the runner is sent there, does the job, and is taken away again.

On the board this leaves nothing: the folder that `mktemp` makes is removed at the end, whatever
the end is. If it is a lost connection, the runner notices and removes the folder itself.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import msgspec

from dsconvert.base.errors import InputError
from dsconvert.base.progress import Progress, silent

from ..runner.__main__ import FULL, REFUSED, STOPPED
from ..runner.engines import RUNTIMES
from ..runner.timing import MAX_RUNS
from . import without_python
from .benchmark_model import RUNTIME as BENCHMARKED
from .device import DeviceInfo, Job, MachineState, Report
from .job_files import Wired, unwire, wire
from .pack import TOO_OLD, packed_runner
from .side_by_side import wait
from .sync_link import Linked
from .transport import Connect, Lost, PutFailed, Transport

logger = logging.getLogger(__name__)

VENV = "~/dsconvert-venv"
"""Where a board's Python with the runtimes is looked for first."""
_HOME = """case $1 in "~/"*) set -- "$HOME/${1#"~/"}" ;; esac
"""
"""A word from here is quoted, so that no shell replaces its ~."""
_PYTHON = f"""{_HOME}for python in "${{1:-$HOME/{VENV[2:]}/bin/python3}}" "${{1:-python3}}"; do
    command -v "$python" && exit
done
exit 127"""
_FOLDER = _HOME + 'mktemp -d "${1:-${TMPDIR:-/tmp}}/dsconvert.XXXXXXXXXX"'
_CLEAN_UP_S = 15.0
_RUN_S = 3600.0
_MIB = 2**20
T = TypeVar("T")


class BoardDevice:
    """A board that a `Transport` leads to.

    Args:
        name: What `--device` calls it.
        connect: Opens the way to it.
        python: The Python there; by default that of the environment ``~/dsconvert-venv``, if there
            is one, else ``python3``.
        folder: The folder there in which a temporary one is made; by default ``$TMPDIR`` or /tmp.
        timeout: Seconds that a job may take there.
        benchmark_binary: A program `benchmark_model` for it, to run .tflite files where there is
            no Python.
    """

    _reads_our_files = False
    """Whether models need not be sent."""

    def __init__(
        self,
        name: str,
        connect: Connect,
        *,
        python: str | None = None,
        folder: str | None = None,
        timeout: float = _RUN_S,
        benchmark_binary: Path | None = None,
    ) -> None:
        self._name = name
        self._connect = connect
        self._python = python
        self._folder = folder
        self._timeout = timeout
        self._binary = benchmark_binary

    @property
    def name(self) -> str:
        """Return what `--device` calls it."""
        return self._name

    def describe(self) -> DeviceInfo:
        """Say what it is.

        Raises:
            InputError: If it cannot be reached or has no Python that is new enough.
        """

        async def ask() -> DeviceInfo:
            async with self._connect() as link, self._at(link) as folder:
                if self._binary is not None:
                    return await self._beside(link, without_python.describe, self._binary)
                return (await self._ready(link, folder))[1]

        if self._binary is not None:
            without_python.check((), self._binary)
        return wait(ask())

    def state(self) -> MachineState | None:
        """Give None: it says how it is doing while it measures."""
        return None

    def measure_all(
        self,
        jobs: Sequence[Job],
        progress: Progress = silent,
        *,
        startup: bool = True,
        max_runs: int = MAX_RUNS,
    ) -> list[Report]:
        """Measure; see `Device.measure_all`. Told of two steps per file, of one without startup."""
        return wait(self.visit(jobs, progress, startup=startup, max_runs=max_runs))

    async def visit(
        self,
        jobs: Sequence[Job],
        progress: Progress = silent,
        *,
        startup: bool = True,
        max_runs: int = MAX_RUNS,
    ) -> list[Report]:
        """Measure; see `Device.visit`."""
        settings = [replace(job, cases=(), min_seconds=0.0) for job in jobs]
        if any(one != settings[0] for one in settings):
            raise ValueError("jobs of one visit have the same settings")
        if self._binary is not None:
            return await self._visit_by_binary(self._binary, jobs, progress)
        wired = wire(jobs, startup=startup, max_runs=max_runs, in_place=self._reads_our_files)
        async with self._connect() as link, self._at(link) as folder:
            python, info = await self._ready(link, folder)
            self._check_runtimes(jobs, info)
            await self._send(link, folder, wired.files, wired.needs)
            count = sum(len(job.cases) for job in jobs) * (2 if startup else 1)
            with progress(f"Measuring on {self.name}", count) as advance:
                ended = await self._run(link, folder, python, advance)
            return await self._reports(link, folder, jobs, wired, info, ended)

    async def _visit_by_binary(
        self, binary: Path, jobs: Sequence[Job], progress: Progress
    ) -> list[Report]:
        """Measure with a program of ours, where there is no Python."""
        without_python.check(jobs, binary)
        sizes = (case.path.stat().st_size for job in jobs for case in job.cases)
        needs = binary.stat().st_size + sum(sizes) + _MIB
        async with self._connect() as link, self._at(link) as folder:
            await self._check_space(link, folder, needs)
            try:
                async with asyncio.timeout(self._timeout):
                    return [
                        await self._beside(
                            link, without_python.measure, folder, binary, job, progress
                        )
                        for job in jobs
                    ]
            except TimeoutError as error:
                raise InputError(
                    f"{self.name}: it was stopped after {self._timeout:g} s.",
                    "Ask for fewer --runs.",
                    code="device-timeout",
                ) from error

    async def _beside(self, link: Transport, work: Callable[..., T], *arguments: Any) -> T:
        """Call something that wants one answer after the other, in a thread."""
        machine = Linked(self.name, link, asyncio.get_running_loop())
        try:
            return await asyncio.to_thread(work, machine, *arguments)
        finally:
            await machine.close()

    @asynccontextmanager
    async def _at(self, link: Transport) -> AsyncIterator[str]:
        """Give a folder of ours on the board."""
        done = await link.run(["sh", "-c", _FOLDER, "sh", self._folder or ""])
        lines = done.stdout.strip().splitlines()  # a login script may have printed before
        folder = lines[-1] if lines else ""
        if done.code != 0 or not folder.startswith("/") or "/dsconvert." not in folder:
            raise InputError(
                f"{self.name}: no temporary folder can be made: {done.last_words}",
                "Name a folder that can be written to, as TMPDIR there.",
                code="device-not-writable",
            )
        try:
            yield folder
        finally:
            await self._remove(link, folder)

    async def _remove(self, link: Transport, folder: str) -> None:
        """Remove our folder; that it stays is no failure of the measurement."""
        try:
            async with asyncio.timeout(_CLEAN_UP_S):
                done = await link.run(["rm", "-rf", "--", folder])
            if done.code != 0:
                logger.warning("%s: %s stays there: %s", self.name, folder, done.last_words)
        except Lost:
            logger.info("%s: the runner has to remove %s itself", self.name, folder)
        except TimeoutError:
            logger.warning("%s: %s stays there: no answer", self.name, folder)

    async def _ready(self, link: Transport, folder: str) -> tuple[str, DeviceInfo]:
        """Send the runner, and let it say what the board is; give the path of Python, too."""
        found = await link.run(["sh", "-c", _PYTHON, "sh", self._python or ""])
        if found.code != 0:
            self._no_python(f"it has no {self._python or 'python3'}")
        python = found.stdout.strip().splitlines()[-1]
        await self._send(link, folder, {"runner.pyz": packed_runner()}, len(packed_runner()))
        done = await link.run([python, f"{folder}/runner.pyz", "describe"])
        if TOO_OLD in done.stderr:
            self._no_python(f"{python}: {done.last_words}")
        if done.code != 0:
            raise InputError(
                f"{self.name}: {python} does not work there: {done.last_words}",
                code="python-not-on-device",
            )
        try:
            said = msgspec.json.decode(done.stdout.strip().splitlines()[-1])
            if not said.pop("numpy"):
                said["runtimes"] = {}
            del said["python"]
            info = msgspec.convert({"name": self.name, **said}, DeviceInfo)
        except (msgspec.MsgspecError, KeyError, IndexError) as error:
            raise InputError(
                f"{self.name}: {python} says something else than was asked for: {done.last_words}",
                code="device-unclear",
            ) from error
        return python, info

    def _no_python(self, why: str) -> NoReturn:
        raise InputError(
            f"{self.name}: {why}.",
            "Install Python 3.9 or newer there, or measure .tflite files by a benchmark_model "
            "built for it: --benchmark-binary PATH.",
            code="device-refused",
        )

    def _check_runtimes(self, jobs: Sequence[Job], info: DeviceInfo) -> None:
        wanted = {case.runtime: None for job in jobs for case in job.cases}
        missing = [runtime for runtime in wanted if runtime not in info.runtimes]
        if not missing:
            return
        usual = [RUNTIMES[runtime].modules[0][1][0] for runtime in missing]
        packages = " ".join(["numpy", *usual])
        names = " and ".join(RUNTIMES[runtime].title for runtime in missing)
        other = " Or --benchmark-binary PATH, for .tflite files." if BENCHMARKED in missing else ""
        raise InputError(
            f"{self.name} has no {names} that its Python finds, or no numpy.",
            f"On the board: python3 -m venv {VENV} && {VENV}/bin/pip install {packages}.{other}",
            code="runtime-not-on-device",
        )

    async def _send(
        self, link: Transport, folder: str, files: Mapping[str, Any], needs: int
    ) -> None:
        """Write files into our folder, if there is space for all that is to come.

        Raises:
            InputError: If there is not, also when that turns out on the way.
        """
        await self._check_space(link, folder, needs)
        for name, content in files.items():
            try:
                await link.put(content, f"{folder}/{name}")
            except PutFailed as error:
                size = len(content) if isinstance(content, bytes) else content.stat().st_size
                free = await link.free_bytes(folder)
                if free is not None and free < size:
                    raise self._full(folder, free, needs) from error
                raise InputError(
                    f"{self.name}: cannot write in {folder} there: {error}",
                    "See that its disk is neither full nor read-only.",
                    code="device-not-writable",
                ) from error

    async def _check_space(self, link: Transport, folder: str, needs: int) -> None:
        free = await link.free_bytes(folder)
        if free is not None and free < needs:
            raise self._full(folder, free, needs)

    def _full(self, folder: str, free: int, needs: int) -> InputError:
        return InputError(
            f"{self.name}: {math.ceil(needs / _MIB)} MiB are needed in {folder.rpartition('/')[0]} "
            f"there, {free / _MIB:.1f} MiB are free.",
            "Make room, or name a folder with more of it as TMPDIR there.",
            code="device-full",
        )

    async def _run(self, link: Transport, folder: str, python: str, advance: Any) -> str:
        """Run the runner; say why it did not come to its end, empty if it did."""
        command = [python, f"{folder}/runner.pyz", "measure", folder, "--attached"]
        try:
            async with asyncio.timeout(self._timeout):
                done = await link.run(
                    command, on_line=lambda line: advance() if line.strip() == "step" else None
                )
        except TimeoutError:
            return f"it was stopped after {self._timeout:g} s"
        if done.code == 0:
            return ""
        if done.code == REFUSED:
            raise InputError(f"{self.name}: {done.last_words}.", code="device-failed")
        if done.code == FULL:
            raise InputError(
                f"{self.name}: no space is left in {folder.rpartition('/')[0]} there.",
                "Make room, or name a folder with more of it as TMPDIR there.",
                code="device-full",
            )
        if done.code is None:
            return f"the runner was killed on {self.name}: out of memory?"
        if done.code == STOPPED:
            return f"the runner was stopped on {self.name}"
        return f"the runner failed on {self.name}: {done.last_words}"

    async def _reports(
        self,
        link: Transport,
        folder: str,
        jobs: Sequence[Job],
        wired: Wired,
        info: DeviceInfo,
        ended: str,
    ) -> list[Report]:
        """Read what the runner has written, complete or not."""
        content = await link.get(f"{folder}/report.json")
        if content is None and not ended:
            ended = "it has written no report"
        said: dict[str, Any] = msgspec.json.decode(content) if content else {}
        outputs = {}
        for places, records in zip(wired.places, said.get("groups", ()), strict=False):
            for place, record in zip(places, records, strict=True):
                if record.get("outputs"):
                    found = await link.get(f"{folder}/{place}.outputs.npz")
                    if found is not None:
                        outputs[place] = found
        return unwire(jobs, wired, folder, said, outputs, info, ended)
