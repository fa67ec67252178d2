"""Phones by adb: TFLite's own benchmark is copied there, and runs the files in turns.

A phone has no Python, so that the figures are those of the program `benchmark_model`. One process
of it runs one file; the processes of all files take turns in random order, and each gives one
sample: the median of its invocations, or their average where the program prints no median.
"""

from __future__ import annotations

import math
import random
import secrets
import shlex
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from dsconvert.converter.core.cache import cache_folder
from dsconvert.converter.core.errors import InputError
from dsconvert.converter.core.files import sha256
from dsconvert.converter.core.predictor import Array
from dsconvert.converter.core.progress import Advance, Progress

from ..runtime import decode, encode
from . import android
from .adb_shell import Phone, Said, TooSlow, choose, inside
from .benchmark_model import NAME, BenchmarkModelResult, InputFile, arguments, parse
from .device import Case, DeviceInfo, Job, MachineState, OperatorTime, Report, Startup, Timed
from .elf import architecture, architecture_of_abi

FOLDER = "/data/local/tmp"
"""Where a phone lets adb's user start programs; memory cards are mounted so that it does not."""
ROUNDS = 10
"""Processes per file: enough for an interval, few enough for what starting one takes."""
_PROCESS_S = 300.0
_MAX_SECONDS = 60.0
_CANNOT_RUN = (126, 127)
_PREBUILT = (
    "https://storage.googleapis.com/tensorflow-nightly-public/prod/tensorflow/release/lite/tools/"
    "nightly/latest/android_{name}_benchmark_model"
)
_PREBUILT_NAMES = {"arm64-v8a": "aarch64", "armeabi-v7a": "arm"}


@dataclass
class _Progressing:
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


class AdbDevice:
    """An Android phone.

    Args:
        name: "adb", or "adb:SERIAL" where adb has several.
        benchmark_binary: The program `benchmark_model` for the phone's architecture; by default
            that in the folder ``benchmark_model/ABI`` of dsconvert's cache.
        folder: Where on the phone a folder is made for the files, and removed afterwards.
        process_s: How long one process may take.
    """

    def __init__(
        self,
        name: str = "adb",
        *,
        benchmark_binary: Path | None = None,
        folder: str = FOLDER,
        process_s: float = _PROCESS_S,
    ) -> None:
        self.name = name
        self._serial = name.partition(":")[2] or None
        self._binary = benchmark_binary
        self._folder = folder
        self._process_s = process_s

    def describe(self) -> DeviceInfo:
        """Say what it is.

        Raises:
            InputError: If there is no such phone, or it cannot be used, with what to do.
        """
        said = android.properties(Phone(choose(self._serial)))
        try:
            binary = self._find_binary(android.abis(said))
        except InputError:
            return android.describe(self.name, said, {})
        return android.describe(self.name, said, {NAME: _version(binary)})

    def state(self) -> MachineState:
        """How it is doing now.

        Raises:
            InputError: If there is no such phone, or it cannot be used, with what to do.
        """
        return android.state(Phone(choose(self._serial)), ())

    def measure(self, job: Job, progress: Progress) -> Report:
        """Measure .tflite files; see `Device.measure`.

        Raises:
            InputError: If the phone cannot be used, a file is none for it, or there is no
                `benchmark_model` that runs on it.
        """
        for case in job.cases:
            if case.runtime != "litert":
                raise InputError(
                    f"{case.path} cannot be profiled by adb: there is no ready-made program that "
                    "runs .onnx files on Android.",
                    "Export it to TFLite: dsconvert export MODEL -o model.tflite",
                )
        phone = Phone(choose(self._serial))
        said = android.properties(phone)
        binary = self._find_binary(android.abis(said))
        info = android.describe(self.name, said, {NAME: _version(binary)})
        rounds = min(ROUNDS, job.runs)
        steps = len(job.cases) * (1 + rounds + job.per_op)
        with self._workplace(phone) as folder, progress("Profiling", steps) as advance:
            program = _install(phone, binary, folder)
            run = _Runner(phone, program, folder, job, rounds, self._process_s)
            before = android.state(phone, job.cpus)
            files = [run.bring(case, i) for i, case in enumerate(job.cases)]
            for file in files:
                run.start_up(file)
                advance()
            run.rounds(files, advance)
            if job.per_op:
                for file in files:
                    run.operators(file)
                    advance()
            after = android.state(phone, job.cpus)
        return Report(
            info=info,
            before=before,
            after=after,
            files=tuple(_timed(file, _version(binary)) for file in files),
            notes=(
                f"{rounds} processes of {NAME} per file in turns; a sample is one process: the "
                "median of its invocations, or their average where it prints no median",
                f"{NAME} prints no version: it is known by the hash of the file",
            ),
        )

    def _find_binary(self, abis: Sequence[str]) -> Path:
        """The program for a phone that runs these ABIs, checked for its architecture."""
        if not abis:
            raise InputError(f"{self.name} does not say what architecture it has.")
        allowed = {architecture_of_abi(abi) for abi in abis}
        if self._binary is not None:
            if not self._binary.is_file():
                raise InputError(f"{self._binary} does not exist or is no file.")
            made_for = architecture(self._binary)
            if made_for not in allowed:
                raise InputError(
                    f"{self._binary} is for {made_for}; {self.name} runs "
                    f"{', '.join(sorted(allowed))}.",
                    _get_binary(abis[0]),
                )
            return self._binary
        places = {abi: binary_place(abi) for abi in abis}
        for abi, place in places.items():
            if place.is_file():
                made_for = architecture(place)
                if made_for != architecture_of_abi(abi):
                    raise InputError(f"{place} is for {made_for}, not for {abi}.", _get_binary(abi))
                return place
        raise InputError(
            f"there is no {NAME} for {self.name} ({abis[0]}): {places[abis[0]]} does not exist.",
            _get_binary(abis[0]),
        )

    @contextmanager
    def _workplace(self, phone: Phone) -> Iterator[str]:
        """A folder of our own on the phone, gone afterwards whatever happens."""
        folder = inside(self._folder, f"dsconvert-{secrets.token_hex(4)}")
        made = phone.shell("mkdir", "-p", folder)
        if made.code != 0:
            raise InputError(
                f"{self.name}: {folder} cannot be made: {_line(made)}",
                f"Use a folder that adb's user may write to, as {FOLDER}.",
            )
        try:
            yield folder
        finally:
            with suppress(InputError):  # gone: what led here is the better message
                phone.script(f"{_stop(folder)}; rm -rf {folder}")


class _Runner:
    """Runs files on one phone."""

    def __init__(
        self, phone: Phone, program: str, folder: str, job: Job, rounds: int, process_s: float
    ) -> None:
        self._phone = phone
        self._program = program
        self._folder = folder
        self._job = job
        self._rounds = rounds
        self._process_s = process_s
        self._too_slow = f"it did not end within {process_s:.0f} s"

    def bring(self, case: Case, number: int) -> _Progressing:
        """Copy a file and its inputs to the phone."""
        path = inside(self._folder, f"{number}.tflite")
        self._phone.push(case.path, path)
        inputs = []
        with tempfile.TemporaryDirectory() as folder:
            pairs = zip(case.inputs, case.input_infos, strict=True)
            for i, (array, info) in enumerate(pairs):
                local = Path(folder, f"{number}-in{i}.bin")
                local.write_bytes(encode(array, info).tobytes())
                self._phone.push(local, inside(self._folder, local.name))
                inputs.append(InputFile(inside(self._folder, local.name), array.shape))
        return _Progressing(case, path, inputs, inside(self._folder, f"{number}-out.bin"))

    def start_up(self, file: _Progressing) -> None:
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

    def rounds(self, files: Sequence[_Progressing], advance: Advance) -> None:
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

    def operators(self, file: _Progressing) -> None:
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
        file: _Progressing,
        *,
        first: bool = False,
        inputs: bool = True,
        per_op: bool = False,
    ) -> BenchmarkModelResult:
        """One process; a result that failed says why."""
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
        start = ["sh", "-c", f'echo $$ > {self._folder}/pid; exec "$@"', "sh"]
        command = shlex.join([*start, *pinned, self._program, *words])
        ended = f"code=$?; rm -f {self._folder}/pid; (exit $code)"
        try:
            said = self._phone.script(f"{command}; {ended}", timeout_s=self._process_s)
        except TooSlow:
            self._phone.script(_stop(self._folder))
            return _failed(self._too_slow)
        result = parse(said.text)
        if said.code != 0:
            return _failed(result.errors[0] if result.errors else _line(said), said.code)
        return result

    def _fetch(self, file: _Progressing, ignored: bool) -> None:
        """Read the outputs of the start-up, if they are those of the given inputs."""
        if file.inputs is None:
            file.notes.append("its outputs were not compared")
            return
        with tempfile.TemporaryDirectory() as folder:
            local = Path(folder, "out.bin")
            if ignored or not self._phone.pull(file.outputs_file, local):
                file.notes.append(f"this {NAME} gives no outputs: they were not compared")
                return
            file.outputs = split_outputs(local.read_bytes(), file.case)
        if file.outputs is None:
            file.notes.append("its outputs have other sizes than the file says: not compared")


def split_outputs(data: bytes, case: Case) -> tuple[Array, ...] | None:
    """The outputs, real-valued, that a file holds one after the other.

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


def binary_place(abi: str) -> Path:
    """Where a `benchmark_model` for this ABI is looked for."""
    return cache_folder() / NAME / abi / NAME


def _get_binary(abi: str) -> str:
    """How to come by a program for this ABI."""
    place = binary_place(abi)
    if abi in _PREBUILT_NAMES:
        url = _PREBUILT.format(name=_PREBUILT_NAMES[abi])
        return f"Name one with --benchmark-binary, or: curl --create-dirs -o {place} {url}"
    return f"Build it from TensorFlow's or LiteRT's sources, then copy it to {place}."


def _version(binary: Path) -> str:
    return f"sha256:{sha256(binary)[:12]}"


def _install(phone: Phone, binary: Path, folder: str) -> str:
    """Copy the program to the phone and see that it starts.

    Raises:
        InputError: If it does not, with what to do.
    """
    program = inside(folder, NAME)
    phone.push(binary, program)
    # Pushed from Windows, or to some phones, a file has lost the bit.
    phone.shell("chmod", "755", program)
    if phone.shell("test", "-x", program).code != 0:
        raise InputError(
            f"{program} cannot be made executable on {phone.serial}.",
            f"Its file system keeps no permissions; use a folder as {FOLDER}.",
        )
    tried = phone.shell(program, "--help", timeout_s=_PROCESS_S)
    if tried.code in _CANNOT_RUN or "CANNOT LINK EXECUTABLE" in tried.text:
        said = _line(tried)
        if "Permission denied" in said:
            hint = f"{folder} is mounted noexec; use a folder as {FOLDER}."
        elif "not executable" in said or "Exec format" in said:
            hint = "It is built for another architecture."
        else:
            hint = "It needs libraries that the phone lacks: use a static build."
        raise InputError(f"{binary.name} does not start on {phone.serial}: {said}", hint)
    return program


def _startup(result: BenchmarkModelResult, notes: list[str]) -> Startup | str:
    if result.init_ms is None or result.first_ms is None:
        return f"{NAME} printed no times for it"
    added = result.memory_mib
    peak = result.peak_memory_mib
    if peak is None:
        if added is None:
            return f"{NAME} does not know its memory on this phone"
        peak = added
        notes.append("peak memory is what the file added: this benchmark_model knows no other")
    return Startup(
        load_ms=result.init_ms,
        first_run_ms=result.first_ms,
        peak_memory_mib=peak,
        memory_increase_mib=peak if added is None else added,
    )


def _timed(file: _Progressing, version: str) -> Timed:
    return Timed(
        runtime=NAME,
        runtime_version=version,
        startup=file.startup,
        samples_ms=() if file.failure else tuple(file.samples),
        outputs=None if file.failure else file.outputs,
        failure=file.failure,
        operators=file.operators,
        notes=tuple(file.notes),
    )


def _stop(folder: str) -> str:
    """Shell words that end the process that runs there, if one does."""
    return f"if [ -f {folder}/pid ]; then kill -9 $(cat {folder}/pid); fi"


def _failed(why: str, code: int | None = None) -> BenchmarkModelResult:
    return BenchmarkModelResult(errors=(why if code is None else f"{why} (exit code {code})",))


def _line(said: Said) -> str:
    """The last line of what a command said."""
    lines = [line.strip() for line in said.text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"
