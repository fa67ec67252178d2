"""How fast, how large: the figures of model files on a device, measured together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from dsconvert.base.errors import DsconvertError, InputError
from dsconvert.base.files import sha256
from dsconvert.base.image_layout import arrange, choose
from dsconvert.base.predictor import Array
from dsconvert.base.progress import Progress, silent

from ..devices.device import Case, Job, Report, TimedFile
from ..devices.host import check_cpus
from ..devices.open_device import is_estimated, open_device
from ..devices.records import OperatorTime, Startup
from ..runner.machine import usable_cpus
from ..runtimes.registry import open_runtime, runtime_for
from ..runtimes.runtime import Runtime
from ..runtimes.samples import check_inputs, random_inputs
from ..verification.device_outputs import not_finite, wrong_answer
from .latency import compare, summarize
from .machine_warnings import doubts
from .model_stats import model_stats
from .operator_matching import matched
from .records import Measurement

HOST = "host"
FORMATS = {"litert": ".tflite", "ort": ".onnx"}
"""What each runtime runs."""
Inputs = Mapping[str, Array] | Sequence[Array] | Array
"""Arrays by input name, or in the order of the inputs, or the one array of the one input."""


class ProfiledFile(NamedTuple):
    """A file that this machine can run.

    Attributes:
        case: What a device is asked.
        expected: This machine's outputs; None if this machine is the device, or it cannot.
    """

    case: Case
    expected: tuple[Array, ...] | None


def profile(
    paths: Sequence[str | Path],
    *,
    device: str | Sequence[str] = HOST,
    benchmark_binary: str | Path | None = None,
    runtime: str | None = None,
    threads: int = 1,
    cpus: Sequence[int] = (),
    runs: int = 200,
    warmup: int = 10,
    min_seconds: float = 0.5,
    per_op: bool = False,
    inputs: Inputs | None = None,
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
        runtime: "litert" or "ort", to be sure that the files are run by it; None for what each
            file's format needs.
        threads: For each runtime.
        cpus: The cores to run on, by number; none for all.
        runs: TimedFile invocations per file, at least.
        warmup: Untimed invocations before all rounds.
        min_seconds: Time per file that the rounds should last at least, up to 5,000 runs.
        per_op: Whether to time the operators of each file too, in runs of their own.
        inputs: What to run on: the first samples of each array are taken, one where the batch is
            free. Images go to each file with their channel axis where it takes it. By default
            random inputs, as `random_inputs` makes them.
        seed: Of random inputs, of the order and of the bootstrap.
        progress: Told of one step per file, then of one for the timing.

    Returns:
        One measurement per file, in the order given; of several devices, device by device.

    Raises:
        InputError: If a file, an option, the inputs or the device cannot be used; before anything
            is measured. Of several devices, if all fail.
        MissingExtra: If a runtime, or what reaches the device, is not installed.
    """
    files = [Path(path) for path in paths]
    _check_options(files, runtime, threads, runs, warmup)
    program = {} if benchmark_binary is None else {"benchmark_binary": Path(benchmark_binary)}
    names = [device] if isinstance(device, str) else list(device)
    estimated = next((name for name in names if is_estimated(name)), None)
    if program and estimated:
        raise InputError(
            f"{estimated} is estimated: no program runs.", "Leave --benchmark-binary out."
        )
    _check_together(names)
    if estimated:
        return _estimated(files, estimated, cpus, per_op)
    targets = [open_device(name, **program) for name in names]
    on_host = names == [HOST]
    if cpus and on_host:
        check_cpus(cpus, usable_cpus())
    opened = [_open(path, inputs, seed, threads, on_host) for path in files]
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
    if len(targets) == 1:
        return _records(opened, targets[0].measure(job, progress), job, inputs is None)
    from ..devices.board import measure_on

    reports = measure_on(targets, job, progress)
    failures = [report for report in reports if isinstance(report, DsconvertError)]
    if len(failures) == len(reports):
        raise failures[0]
    found: list[Measurement] = []
    for target, report in zip(targets, reports, strict=True):
        if isinstance(report, DsconvertError):
            found += [_unreached(one.case.path, target.name, report, job) for one in opened]
        else:
            found += _records(opened, report, job, inputs is None)
    return found


def _records(
    opened: Sequence[ProfiledFile], report: Report, job: Job, random: bool
) -> list[Measurement]:
    """One device's records, compared with the first of them."""
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


def _unreached(path: Path, device: str, error: DsconvertError, job: Job) -> Measurement:
    """The record of a file on a device that failed as a whole."""
    runtime = runtime_for(path)
    return Measurement(
        path=str(path),
        sha256=sha256(path),
        size_bytes=path.stat().st_size,
        runtime=runtime.name,
        runtime_version="",
        cpu="",
        threads=job.threads,
        batch=1,
        warmup=job.warmup,
        runs=0,
        startup=None,
        latency=None,
        cpus=job.cpus,
        failure=" ".join(filter(None, (f"{device}: {error.message}", error.hint))),
    )


def _check_together(names: Sequence[str]) -> None:
    """Refuse devices that cannot be measured side by side."""
    if not names:
        raise InputError("no device to measure on.", "Name one, or leave --device out.")
    alone = [name for name in names if name == HOST or is_estimated(name)]
    if len(names) > 1 and alone:
        raise InputError(
            f"{alone[0]} does not go with other devices, got {', '.join(names)}.",
            "Only boards and phones are measured side by side.",
        )
    if len({*names}) < len(names):
        raise InputError(f"a device is named twice: {', '.join(names)}.")


def _check_options(
    files: Sequence[Path], runtime: str | None, threads: int, runs: int, warmup: int
) -> None:
    """Check everything that needs no loading."""
    if not files:
        raise InputError("no files to profile.", "Name .tflite or .onnx files.")
    for name, value, least in (("threads", threads, 1), ("runs", runs, 1), ("warmup", warmup, 0)):
        if value < least:
            raise InputError(f"{name} must be {least} or more, got {value}.")
    if runtime is not None and runtime not in FORMATS:
        raise InputError(f"unknown runtime {runtime!r}; allowed: {', '.join(FORMATS)}.")
    for path in files:
        found = runtime_for(path)
        if runtime is not None and path.suffix.lower() != FORMATS[runtime]:
            raise InputError(
                f"{path}: {runtime} runs {FORMATS[runtime]} files only, {found.name} runs this.",
                "Leave --runtime out, or profile files of one format.",
            )


def _estimated(
    files: Sequence[Path], device: str, cpus: Sequence[int], per_op: bool
) -> list[Measurement]:
    """What is known of the files on a device that is not there."""
    if cpus or per_op:
        raise InputError(
            f"{device} is estimated from the file: there are no cores to choose and no operators "
            "to time.",
            "Leave --cpus and --per-op out.",
        )
    from .estimates import estimate_measurements

    return estimate_measurements(files, device)


def _open(
    path: Path, inputs: Inputs | None, seed: int, threads: int, on_host: bool
) -> ProfiledFile:
    """Load a file to see that it can be, what it takes and, for another device, what it gives."""
    runtime = open_runtime(path, threads=threads)
    arrays = _inputs_for(runtime, inputs, seed)
    name = next(name for name, suffix in FORMATS.items() if suffix == path.suffix.lower())
    case = Case(path, name, arrays, runtime.inputs, runtime.outputs)
    prepared = runtime.prepare(arrays)  # whether they fit
    if on_host:
        return ProfiledFile(case, None)
    try:
        prepared.run()
    except Exception:  # it may run there all the same, and is not compared
        return ProfiledFile(case, None)
    return ProfiledFile(case, prepared.read())


def _inputs_for(runtime: Runtime, inputs: Inputs | None, seed: int) -> tuple[Array, ...]:
    """One invocation's inputs for this file."""
    if inputs is None:
        try:
            return random_inputs(runtime.inputs, 1, seed)
        except InputError as error:
            raise InputError(f"{runtime.path}: {error.message}", error.hint) from error
    if isinstance(inputs, Mapping):
        missing = [name for name in runtime.input_names if name not in inputs]
        if missing:
            raise InputError(
                f"{runtime.path}: no array for input {', '.join(missing)}; "
                f"there are arrays for {', '.join(inputs)}."
            )
        inputs = [inputs[name] for name in runtime.input_names]
    arrays = [inputs] if isinstance(inputs, np.ndarray) else list(inputs)
    if len(arrays) == len(runtime.inputs):  # one file may take images as NHWC, the next as NCHW
        arrays = [
            arrange(array, choose(array.shape, info.shape, channels_first=False))
            for array, info in zip(map(np.asarray, arrays), runtime.inputs, strict=True)
        ]
    arrays = list(check_inputs(arrays, runtime.inputs, str(runtime.path)))
    for i, (array, info) in enumerate(zip(arrays, runtime.inputs, strict=True)):
        if info.shape:
            size = info.shape[0] or 1
            if len(array) < size:
                raise InputError(
                    f"{runtime.path}: input {info.name} takes {size} samples at once, "
                    f"the array holds {len(array)}."
                )
            arrays[i] = array[:size]
    return tuple(arrays)


def _batch(arrays: Sequence[Array]) -> int:
    """Samples per invocation; 1 if there is nothing that counts them."""
    return max((len(array) for array in arrays[:1] if array.ndim), default=1)


def _measurement(
    opened: ProfiledFile, timed: TimedFile, report: Report, job: Job, notes: Sequence[str]
) -> Measurement:
    """The record of one file, not yet compared."""
    case, info = opened.case, report.info
    failure, remarks = _verdict(opened, timed, on_host=info.name == HOST, emulated=info.emulated)
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


def _verdict(
    opened: ProfiledFile, timed: TimedFile, *, on_host: bool, emulated: bool
) -> tuple[str, list[str]]:
    """Why there is no latency, or an empty string, and what else to say."""
    if timed.failure:
        return timed.failure, []
    remarks = []
    if timed.outputs is not None:
        wrong = not_finite(timed.outputs)
        if not wrong and opened.expected is not None:
            case = opened.case
            wrong = wrong_answer(case.path, case.output_infos, opened.expected, timed.outputs)
        if wrong:
            return wrong, []
    if not on_host and (timed.outputs is None or opened.expected is None):
        remarks.append("its outputs were not compared with this machine's")
    if emulated:
        return "emulated: the times of an emulated processor are no latency", remarks
    return "" if timed.samples_ms else "the device gave no timings", remarks


def _compared(first: Measurement, other: Measurement, seed: int) -> Measurement:
    """The measurement with its comparison, if both files have a latency."""
    if first.latency is None or other.latency is None:
        return other
    comparison = compare(first.path, first.latency, other.latency, seed)
    return msgspec.structs.replace(other, comparison=comparison)
