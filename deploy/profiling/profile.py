"""How fast, how large: the figures of model files on a device, measured together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from dsconvert.base.errors import DsconvertError, InputError
from dsconvert.base.files import sha256
from dsconvert.base.input_size import InputSizes
from dsconvert.base.predictor import Array
from dsconvert.base.progress import Progress, silent

from ..devices.device import Case, Job, Report, TimedFile
from ..devices.host import check_cpus
from ..devices.records import HOST, DeviceInfo, OperatorTime, Startup
from ..devices.registry import DeviceEntry, find_device
from ..devices.side_by_side import measure_on
from ..runner.machine import usable_cpus
from ..runtimes.registry import find_runtime, runtime_for
from ..runtimes.runtime import Runtime
from ..verification.device_outputs import not_finite, wrong_answer
from .latency import compare, summarize
from .machine_warnings import doubts
from .model_stats import model_stats
from .opened_files import Inputs, ProfiledFile, RandomInputs, open_file
from .operator_matching import matched
from .records import Measurement

_CODES = ("damaged-file", "file-crashes-runtime")
"""Codes of errors that cost the file and not the run."""
DAMAGED = "is damaged"
"""What the failure of such a file says."""


def profile(
    paths: Sequence[str | Path],
    *,
    device: str | Sequence[str] = HOST,
    benchmark_binary: str | Path | None = None,
    runtime: str | Sequence[str] | None = None,
    threads: int = 1,
    cpus: Sequence[int] = (),
    runs: int = 200,
    warmup: int = 10,
    min_seconds: float = 0.5,
    per_op: bool = False,
    inputs: Inputs | None = None,
    input_size: InputSizes = (),
    seed: int = 0,
    progress: Progress = silent,
) -> list[Measurement]:
    """Measure .tflite and .onnx files on a device's CPU and compare them with the first.

    Load time, first run and peak memory come from a fresh process per file. Latency comes from
    one process where the files take turns in rounds, in random order, so that all see the same
    disturbances and none always follows the same neighbour. A turn is one untimed invocation,
    which brings the file's weights back into the caches, and five timed ones. A file that fails,
    whose outputs are not finite, or whose outputs on the device are not those of this machine,
    gets a `Measurement.failure` and no latency.

    Args:
        paths: The files; the first is the one the others are compared with.
        device: "host", "ssh:[USER@]HOST[:PORT]", "adb[:SERIAL]", or a name of which the figures
            are estimated from the files: one of Vela's accelerators, or "mcu". Several boards and
            phones are measured side by side; one that fails leaves the others alone.
        benchmark_binary: TFLite's program `benchmark_model`, built for a phone or for a board, to
            run .tflite files there; by default what devices.toml or dsconvert's cache has.
        runtime: The runtime to run the files in, "litert" or "ort"; None for the default of each
            file's format. Of several, each file is measured in all that run its format, in turns.
        threads: For each runtime.
        cpus: The cores to run on, by number; none for all.
        runs: Timed invocations per file, at least.
        warmup: Untimed invocations before all rounds.
        min_seconds: Time per file that the rounds should last at least, up to 5,000 runs.
        per_op: Whether to time the operators of each file too, in runs of their own.
        inputs: What to run on: the first samples of each array are taken, one where the batch is
            free. Images go to each file with their channel axis where it takes it. By default
            random inputs, as `random_inputs` makes them.
        input_size: The sizes of random inputs where a file leaves them free.
        seed: Of random inputs, of the order and of the bootstrap.
        progress: Told of one step per file, then of one for the timing.

    Returns:
        One measurement per file and runtime, in the order given; of several devices, device by
        device.

    Raises:
        InputError: If a file, an option, the inputs or the device cannot be used; before anything
            is measured. Of several devices, if all fail; of several files, if all are damaged.
        MissingExtra: If a runtime, or what reaches the device, is not installed.
    """
    files = [Path(path) for path in paths]
    _check_options(files, threads, runs, warmup)
    if input_size and inputs is not None:
        raise InputError(
            "input data have a size already: --input-size is for random inputs.",
            "Leave --input-size or --data out.",
            code="size-with-data",
        )
    program = None if benchmark_binary is None else Path(benchmark_binary)
    names = [device] if isinstance(device, str) else list(device)
    entries = [find_device(name, program) for name in names]
    _check_together(names, entries)
    first = entries[0]
    if not first.capabilities.measured:
        return _estimated(files, first.name, cpus, per_op, input_size)
    asked = _in_runtimes(files, runtime)
    targets = [entry.open() for entry in entries]
    if cpus and first.capabilities.this_machine:
        check_cpus(cpus, usable_cpus())
    here = first.capabilities.this_machine
    given = RandomInputs(seed, input_size) if inputs is None else inputs
    tried = [_opened(path, chosen, given, threads, here) for path, chosen in asked]
    opened = [one for one in tried if isinstance(one, ProfiledFile)]
    if not opened:
        raise next(one for one in tried if isinstance(one, InputError))
    job = Job(
        cases=tuple(one.case for one in opened),
        threads=threads,
        cpus=tuple(cpus),
        runs=runs,
        warmup=warmup,
        min_seconds=min_seconds,
        seed=seed,
        per_op=per_op,
    )
    damaged = [
        (number, _failed(path, chosen.title, str(one.words.message), job))
        for number, ((path, chosen), one) in enumerate(zip(asked, tried, strict=True))
        if isinstance(one, InputError)
    ]
    if len(targets) == 1:
        (alone,) = targets[0].measure_all([job], progress)
        return _with(damaged, _records(opened, alone, job, inputs is None))
    reports = measure_on(targets, job, progress)
    failures = [report for report in reports if isinstance(report, DsconvertError)]
    if len(failures) == len(reports):
        raise failures[0]
    found: list[Measurement] = []
    for target, report in zip(targets, reports, strict=True):
        if isinstance(report, DsconvertError):
            made = [_unreached(one.case, target.name, report, job) for one in opened]
        else:
            made = _records(opened, report, job, inputs is None)
        found += _with(damaged, made)
    return found


def _opened(
    path: Path, chosen: Runtime, inputs: Inputs | RandomInputs, threads: int, here: bool
) -> ProfiledFile | InputError:
    """Open a file; the error of one that is damaged is its result, and the others are measured.

    Raises:
        InputError: As `open_file`, of a sound file.
    """
    try:
        return open_file(path, chosen, inputs, threads, here)
    except InputError as error:
        if error.code not in _CODES:
            raise
        return error


def _with(
    damaged: Sequence[tuple[int, Measurement]], made: Sequence[Measurement]
) -> list[Measurement]:
    """Return records in the order of the files."""
    records, first = list(made), made[0]
    for number, record in damaged:
        where = msgspec.structs.replace(
            record, device=first.device, cpu=first.cpu, notes=first.notes[:0]
        )
        records.insert(number, where)
    return records


def _records(
    opened: Sequence[ProfiledFile], report: Report, job: Job, random: bool
) -> list[Measurement]:
    """Return one device's records, compared with the first of them."""
    said = doubts(report.info, report.before, report.after, job.threads, len(job.cpus))
    notes = [*said, *report.notes]
    if random:
        notes.append("run on random inputs")
    measurements = [
        _measurement(one, timed, report, job, notes)
        for one, timed in zip(opened, report.files, strict=True)
    ]
    first, *others = measurements
    return [first, *(_compared(first, other, job.seed) for other in others)]


def _unreached(case: Case, device: str, error: DsconvertError, job: Job) -> Measurement:
    """Return the record of a file on a device that failed as a whole."""
    why = " ".join(filter(None, (f"{device}: {error.words.message}", error.words.hint)))
    return _failed(case.path, find_runtime(case.runtime).title, why, job)


def _failed(path: Path, runtime: str, why: str, job: Job) -> Measurement:
    """Return the record of a file that was not measured."""
    return Measurement(
        path=str(path),
        sha256=sha256(path),
        size_bytes=path.stat().st_size,
        runtime=runtime,
        runtime_version="",
        cpu="",
        threads=job.threads,
        batch=1,
        warmup=job.warmup,
        runs=0,
        startup=None,
        latency=None,
        cpus=job.cpus,
        failure=why,
    )


def _check_together(names: Sequence[str], entries: Sequence[DeviceEntry]) -> None:
    """Refuse devices that cannot be measured side by side."""
    if not entries:
        raise InputError(
            "no device to measure on.", "Name one, or leave --device out.", code="no-device"
        )
    alone = [one.name for one in entries if not one.capabilities.side_by_side]
    if len(names) > 1 and alone:
        raise InputError(
            f"{alone[0]} does not go with other devices, got {', '.join(names)}.",
            "Only boards and phones are measured side by side.",
            code="devices-exclude",
        )
    if len({*names}) < len(names):
        raise InputError(f"a device is named twice: {', '.join(names)}.", code="device-twice")


def _check_options(files: Sequence[Path], threads: int, runs: int, warmup: int) -> None:
    """Check everything that needs no loading."""
    if not files:
        raise InputError("no files to profile.", "Name .tflite or .onnx files.", code="no-files")
    for name, value, least in (("threads", threads, 1), ("runs", runs, 1), ("warmup", warmup, 0)):
        if value < least:
            raise InputError(f"{name} must be {least} or more, got {value}.", code="out-of-range")


def _in_runtimes(
    files: Sequence[Path], runtime: str | Sequence[str] | None
) -> list[tuple[Path, Runtime]]:
    """Return each file with each of the runtimes that are to run it.

    Raises:
        InputError: If there is no such file or runtime, or one has no counterpart.
    """
    names = [runtime] if isinstance(runtime, str) else list(dict.fromkeys(runtime or ()))
    if len(names) < 2:
        return [(path, runtime_for(path, *names)) for path in files]
    chosen = [find_runtime(name) for name in names]
    pairs = [(path, one) for path in files if runtime_for(path) for one in chosen if one.runs(path)]
    for path in files:
        if path not in (used for used, _ in pairs):
            raise InputError(
                f"{path}: neither {' nor '.join(names)} runs this.", code="runtime-not-for-file"
            )
    for one in chosen:
        if one not in (used for _, used in pairs):
            raise InputError(
                f"{one.name} runs {' and '.join(one.suffixes)} files only, there is none.",
                "Leave this --runtime out.",
                code="runtime-not-for-file",
            )
    return pairs


def _estimated(
    files: Sequence[Path],
    device: str,
    cpus: Sequence[int],
    per_op: bool,
    input_size: InputSizes,
) -> list[Measurement]:
    """Return what is known of the files on a device that is not there."""
    if input_size:
        raise InputError(
            f"{device} runs files of fixed sizes only, and takes no --input-size.",
            "Fix the size as the file is made: dsconvert export MODEL --input-size HxW",
            code="option-not-applicable",
        )
    if cpus or per_op:
        raise InputError(
            f"{device} is estimated from the file: there are no cores to choose and no operators "
            "to time.",
            "Leave --cpus and --per-op out.",
            code="option-not-applicable",
        )
    from .estimates import estimate_measurements

    return estimate_measurements(files, device)


def _batch(arrays: Sequence[Array]) -> int:
    """Samples per invocation; 1 if there is nothing that counts them."""
    return max((len(array) for array in arrays[:1] if array.ndim), default=1)


def _measurement(
    opened: ProfiledFile, timed: TimedFile, report: Report, job: Job, notes: Sequence[str]
) -> Measurement:
    """Return the record of one file, not yet compared."""
    case, info = opened.case, report.info
    failure, remarks = _verdict(opened, timed, info)
    startup: Startup | None = None
    if isinstance(timed.startup, str):
        remarks.append(f"load time and memory are unavailable: {timed.startup}")
    elif not info.emulated:
        startup = timed.startup
    facts = model_stats(case.path, [array.shape for array in case.inputs])
    batch = _batch(case.inputs)
    latency = None if failure else summarize(timed.samples_ms, batch)
    operators: tuple[OperatorTime, ...] | str = timed.operators
    if info.emulated and operators:
        operators = "unavailable: emulated"
    elif not isinstance(operators, str):
        operators = matched(operators, facts.ops)
    known = latency is not None and isinstance(facts.macs, int) and facts.macs > 0
    return Measurement(
        path=str(case.path),
        sha256=sha256(case.path),
        size_bytes=case.path.stat().st_size,
        runtime=timed.runtime,
        runtime_version=timed.runtime_version,
        cpu=info.cpu,
        threads=job.threads,
        batch=batch,
        warmup=job.warmup,
        runs=len(timed.samples_ms),
        startup=startup,
        latency=latency,
        device=info,
        before=report.before,
        after=report.after,
        cpus=job.cpus,
        macs=facts.macs,
        gmacs_per_s=float(facts.macs) / latency.p50_ms / 1e6 if known and latency else None,
        weight_bytes=facts.weight_bytes,
        activation_bytes=facts.activation_bytes,
        operators=operators,
        failure=failure,
        notes=(*notes, *remarks, *timed.notes),
    )


def _verdict(opened: ProfiledFile, timed: TimedFile, info: DeviceInfo) -> tuple[str, list[str]]:
    """Tell why there is no latency, or an empty string, and what else to say."""
    if timed.failure or opened.wrong:
        return timed.failure or opened.wrong, []
    remarks = []
    if timed.outputs is not None:
        wrong = not_finite(timed.outputs)
        if not wrong and opened.expected is not None:
            case = opened.case
            wrong = wrong_answer(
                case.path, case.output_infos, opened.expected, timed.outputs, case.inputs
            )
        if wrong:
            return wrong, []
    if timed.outputs is None or (opened.expected is None and info.name != HOST):
        remarks.append("its outputs were not compared with this machine's")
    if info.emulated:
        return "emulated: the times of an emulated processor are no latency", remarks
    return "" if timed.samples_ms else "the device gave no timings", remarks


def _compared(first: Measurement, other: Measurement, seed: int) -> Measurement:
    """Return the measurement with its comparison, if both files have a latency."""
    if first.latency is None or other.latency is None:
        return other
    comparison = compare(first.path, first.latency, other.latency, seed)
    return msgspec.structs.replace(other, comparison=comparison)
