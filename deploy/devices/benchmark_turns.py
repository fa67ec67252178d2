"""TFLite's own benchmark on a machine without Python: a process per file, the files in turns.

One process of it runs one file; the processes of all files take turns in random order, and each
gives one sample: the median of its invocations, or their average where the program prints no
median.
"""

from __future__ import annotations

import math
import random
import shlex
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from dsconvert.base.errors import InputError
from dsconvert.base.files import sha256
from dsconvert.base.predictor import Array
from dsconvert.base.progress import Advance, Progress

from ..runtimes.session import decode, encode
from .adb_shell import Said, TooSlow, inside
from .benchmark_model import NAME, BenchmarkModelResult, InputFile, arguments, parse
from .device import Case, DeviceInfo, Job, MachineState, OperatorTime, Report, Startup, TimedFile

ROUNDS = 10
"""Processes per file: enough for an interval, few enough for what starting one takes."""
PROCESS_S = 300.0
_MAX_SECONDS = 60.0
_CANNOT_RUN = (126, 127)
_NOT_STARTED = ("CANNOT LINK EXECUTABLE", "not executable: ")
"""What Android's linker and shell say of what they then leave with exit code 1, as --help does."""


class Machine(Protocol):
    """Where programs run, with files of its own."""

    serial: str

    def shell(self, *words: str, timeout_s: float = ...) -> Said:
        """Run a command of these words."""
        ...

    def script(self, text: str, timeout_s: float = ...) -> Said:
        """Let its shell read a text.

        Raises:
            TooSlow: If that takes longer.
        """
        ...

    def push(self, path: Path, to: str) -> None:
        """Copy a file there."""
        ...

    def pull(self, path: str, to: Path) -> bool:
        """Copy a file from there; whether it is there."""
        ...


@dataclass
class Progressing:
    """A file on the phone, and what is known of it so far."""

    case: Case
    path: str
    inputs: list[InputFile] | None
    outputs_file: str
    startup: Startup | str = ""
    samples: list[float] = field(default_factory=list)
    outputs: tuple[Array, ...] | None = None
    operators: tuple[OperatorTime, ...] | str = ()
    failure: str = ""
    notes: list[str] = field(default_factory=list)


class Turns:
    """Runs files on one machine."""

    def __init__(
        self, machine: Machine, program: str, folder: str, job: Job, rounds: int, process_s: float
    ) -> None:
        self._machine = machine
        self._program = program
        self._folder = folder
        self._pid = shlex.quote(f"{folder}/pid")
        self._job = job
        self._rounds = rounds
        self._process_s = process_s
        self._too_slow = f"it did not end within {process_s:.0f} s"

    def bring(self, case: Case, number: int) -> Progressing:
        """Copy a file and its inputs there."""
        path = inside(self._folder, f"{number}.tflite")
        self._machine.push(case.path, path)
        inputs = []
        with tempfile.TemporaryDirectory() as folder:
            pairs = zip(case.inputs, case.input_infos, strict=True)
            for i, (array, info) in enumerate(pairs):
                local = Path(folder, f"{number}-in{i}.bin")
                local.write_bytes(encode(array, info).tobytes())
                self._machine.push(local, inside(self._folder, local.name))
                inputs.append(InputFile(inside(self._folder, local.name), array.shape))
        return Progressing(case, path, inputs, inside(self._folder, f"{number}-out.bin"))

    def start_up(self, file: Progressing) -> None:
        """One process that is not timed: loading, first run, memory, outputs."""
        result = self._run(file, first=True)
        if result.failure not in ("", self._too_slow) and file.inputs:
            # Some binaries refuse inputs: without them the times are as good.
            plain = self._run(file, first=True, inputs=False)
            if not plain.failure:
                file.inputs = None
                file.notes.append(f"it runs on random inputs: {result.failure}")
                result = plain
        ignored = {flag.partition("=")[0] for flag in result.ignored_flags}
        if "--input_layer_value_files" in ignored:
            file.inputs = None
            file.notes.append(f"it runs on random inputs: this {NAME} takes no others")
        if result.failure:
            file.failure = file.startup = result.failure
            return
        file.startup = _startup(result, file.notes)
        if result.delegates:
            file.notes.append(f"executed with {', '.join(result.delegates)}")
        self._fetch(file, "--output_filepath" in ignored)

    def rounds(self, files: Sequence[Progressing], advance: Advance) -> None:
        """Time the files in turns; one that fails leaves the turns."""
        order, rng = list(files), random.Random(self._job.seed)
        for _ in range(self._rounds):
            rng.shuffle(order)
            for file in order:
                if not file.failure:
                    result = self._run(file)
                    file.failure = result.failure
                    if result.typical_ms is not None:
                        file.samples.append(result.typical_ms)
                advance()

    def operators(self, file: Progressing) -> None:
        """One process that times the operators."""
        if file.failure:
            file.operators = file.failure
            return
        result = self._run(file, per_op=True)
        if result.operators:
            file.operators = result.operators
            file.notes.append("times of operators are averages, with the profiler's own cost")
        else:
            file.operators = result.failure or f"this {NAME} printed no operators"

    def _run(
        self,
        file: Progressing,
        *,
        first: bool = False,
        inputs: bool = True,
        per_op: bool = False,
    ) -> BenchmarkModelResult:
        """Return one process; a result that failed says why."""
        job = self._job
        given = file.inputs if inputs else None
        words = arguments(
            file.path,
            threads=job.threads,
            runs=1 if first else math.ceil(job.runs / self._rounds),
            warmup=1 if first else job.warmup,
            min_seconds=0.0 if first else job.min_seconds / self._rounds,
            max_seconds=_MAX_SECONDS,
            per_op=per_op,
            inputs=given,
            outputs=file.outputs_file if first and given else None,
        )
        if first:  # it watches its memory with a thread of its own, which the timed ones do without
            words.append("--report_peak_memory_footprint=true")
        pinned = ["taskset", f"{sum(1 << cpu for cpu in {*job.cpus}):x}"] if job.cpus else []
        start = ["sh", "-c", f'echo $$ > {self._pid}; exec "$@"', "sh"]
        command = shlex.join([*start, *pinned, self._program, *words])
        ended = f"code=$?; rm -f {self._pid}; (exit $code)"
        try:
            said = self._machine.script(f"{command}; {ended}", timeout_s=self._process_s)
        except TooSlow:
            self._machine.script(stop(self._folder))
            return _failed(self._too_slow)
        result = parse(said.text)
        if said.code != 0:
            return _failed(result.errors[0] if result.errors else line_of(said), said.code)
        return result

    def _fetch(self, file: Progressing, ignored: bool) -> None:
        """Read the outputs of the start-up, if they are those of the given inputs."""
        if file.inputs is None:
            file.notes.append("its outputs were not compared")
            return
        with tempfile.TemporaryDirectory() as folder:
            local = Path(folder, "out.bin")
            if ignored or not self._machine.pull(file.outputs_file, local):
                file.notes.append(f"this {NAME} gives no outputs: they were not compared")
                return
            file.outputs = split_outputs(local.read_bytes(), file.case)
        if file.outputs is None:
            file.notes.append("its outputs have other sizes than the file says: not compared")


def measure_in_turns(
    machine: Machine,
    folder: str,
    binary: Path,
    job: Job,
    progress: Progress,
    *,
    info: DeviceInfo,
    state: Callable[[], MachineState],
    better: str,
    process_s: float = PROCESS_S,
) -> Report:
    """Bring the program and the files to a machine, and run them there.

    Args:
        machine: Where.
        folder: Our folder there.
        binary: The program, here.
        job: What to measure.
        progress: Told of a step per process.
        info: What the machine is.
        state: Says how it is doing.
        better: A folder there from which programs do start.
        process_s: How long one process may take.

    Raises:
        InputError: If the program does not start there.
    """
    rounds = min(ROUNDS, job.runs)
    steps = len(job.cases) * (1 + rounds + job.per_op)
    with progress(f"Measuring on {info.name}", steps) as advance:
        program = install(machine, binary, folder, better)
        turns = Turns(machine, program, folder, job, rounds, process_s)
        before = state()
        files = [turns.bring(case, i) for i, case in enumerate(job.cases)]
        for file in files:
            turns.start_up(file)
            advance()
        turns.rounds(files, advance)
        if job.per_op:
            for file in files:
                turns.operators(file)
                advance()
        after = state()
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


def split_outputs(data: bytes, case: Case) -> tuple[Array, ...] | None:
    """Return the outputs, real-valued, that a file holds one after the other.

    Returns:
        None if the bytes are not as many as the shapes ask for. A free first size is that of the
        inputs; another one can be told only where there is one output.
    """
    batch = len(case.inputs[0]) if case.inputs and case.inputs[0].ndim else 1
    arrays, start = [], 0
    for info in case.output_infos:
        shape = [batch if i == 0 and size is None else size for i, size in enumerate(info.shape)]
        dtype = np.dtype(info.dtype)
        known = math.prod(size for size in shape if size is not None)
        count = known
        if None in shape:
            if len(case.output_infos) > 1 or shape.count(None) > 1:
                return None
            count = len(data) // dtype.itemsize
        end = start + count * dtype.itemsize
        if end > len(data) or (known and count % known):
            return None
        values = np.frombuffer(data[start:end], dtype)
        arrays.append(decode(values.reshape([-1 if s is None else s for s in shape]), info))
        start = end
    return tuple(arrays) if start == len(data) else None


def version_of(binary: Path) -> str:
    """Return what the program is known by: it prints no version."""
    return f"sha256:{sha256(binary)[:12]}"


def install(machine: Machine, binary: Path, folder: str, better: str) -> str:
    """Copy the program there and see that it starts.

    Args:
        machine: Where.
        binary: The program, here.
        folder: Our folder there.
        better: A folder that programs can be started from, for the hint.

    Raises:
        InputError: If it does not, with what to do.
    """
    program = inside(folder, NAME)
    machine.push(binary, program)
    # Pushed from Windows, or to some phones, a file has lost the bit.
    machine.shell("chmod", "755", program)
    if machine.shell("test", "-x", program).code != 0:
        raise InputError(
            f"{program} cannot be made executable on {machine.serial}.",
            f"Its file system keeps no permissions; use a folder like {better}.",
            code="device-not-writable",
        )
    tried = machine.shell(program, "--help", timeout_s=PROCESS_S)
    if tried.code in _CANNOT_RUN or any(words in tried.text for words in _NOT_STARTED):
        said = line_of(tried)
        if "Permission denied" in said:
            hint = f"{folder} is mounted noexec; use a folder like {better}."
        elif "not executable" in said or "Exec format" in said:
            hint = "It is built for another architecture."
        else:
            hint = "It needs libraries that are not there: use a static build."
        raise InputError(
            f"{binary.name} does not start on {machine.serial}: {said}",
            hint,
            code="program-does-not-start",
        )
    return program


def _startup(result: BenchmarkModelResult, notes: list[str]) -> Startup | str:
    if result.init_ms is None or result.first_ms is None:
        return f"{NAME} printed no times for it"
    added = result.memory_mib
    peak = result.peak_memory_mib
    if peak is None:
        if added is None:
            return f"{NAME} does not know its memory there"
        peak = added
        notes.append("peak memory is what the file added: this benchmark_model knows no other")
    return Startup(
        load_ms=result.init_ms,
        first_run_ms=result.first_ms,
        peak_memory_mib=peak,
        memory_increase_mib=peak if added is None else added,
    )


def timed(file: Progressing, version: str) -> TimedFile:
    """Return what is known of a file in the end."""
    return TimedFile(
        runtime=NAME,
        runtime_version=version,
        startup=file.startup,
        samples_ms=() if file.failure else tuple(file.samples),
        outputs=None if file.failure else file.outputs,
        failure=file.failure,
        operators=file.operators,
        notes=tuple(file.notes),
    )


def stop(folder: str) -> str:
    """Shell words that end the process that runs there, if one does."""
    pid = shlex.quote(f"{folder}/pid")
    return f"if [ -f {pid} ]; then kill -9 $(cat {pid}); fi"


def _failed(why: str, code: int | None = None) -> BenchmarkModelResult:
    return BenchmarkModelResult(errors=(why if code is None else f"{why} (exit code {code})",))


def line_of(said: Said) -> str:
    """Return the last line of what a command said."""
    lines = [line.strip() for line in said.text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"
