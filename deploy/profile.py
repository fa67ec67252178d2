"""How fast, how large: the figures of model files on this machine, measured together."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
import psutil
from dsconvert.converter.core.errors import InputError
from dsconvert.converter.core.files import sha256
from dsconvert.converter.core.layout import arrange, choose
from dsconvert.converter.core.predictor import Array
from dsconvert.converter.core.progress import Progress, silent

from .isolated import measure_isolated
from .latency import compare, summarize
from .runner.machine import cpu_name
from .runner.timing import time_in_rounds
from .runtime import Prepared, Runtime, first_line
from .runtimes import open_runtime, runtime_for
from .samples import check_inputs, random_inputs
from .types import Measurement, Startup

Inputs = Mapping[str, Array] | Sequence[Array] | Array
"""Arrays by input name, or in the order of the inputs, or the one array of the one input."""


def profile(
    paths: Sequence[str | Path],
    *,
    threads: int = 1,
    runs: int = 200,
    warmup: int = 10,
    min_seconds: float = 0.5,
    inputs: Inputs | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> list[Measurement]:
    """Measure .tflite and .onnx files on this machine's CPU and compare them with the first.

    Load time, first run and peak memory come from a fresh process per file. Latency comes from
    this process: files take turns in rounds, in random order, so that all see the same
    disturbances and none always follows the same neighbour. A turn is one untimed invocation,
    which brings the file's weights back into the caches, and five timed ones. A file that fails,
    or whose outputs are not finite, gets a `Measurement.failure` and no latency.

    Args:
        paths: The files; the first is the one the others are compared with.
        threads: For each runtime.
        runs: Timed invocations per file, at least.
        warmup: Untimed invocations before all rounds.
        min_seconds: Time per file that the rounds should last at least, up to 5,000 runs.
        inputs: What to run on: the first samples of each array are taken, one where the batch is
            free. Images go to each file with their channel axis where it takes it. By default
            random inputs, as `random_inputs` makes them.
        seed: Of random inputs, of the order and of the bootstrap.
        progress: Told of one step per file, then of one for the timing.

    Returns:
        One measurement per file, in the order given.

    Raises:
        InputError: If a file, an option or the inputs cannot be used; before anything is measured.
        MissingExtra: If a runtime is not installed.
    """
    files = [Path(path) for path in paths]
    _check_options(files, threads, runs, warmup)
    runtimes = [open_runtime(path, threads=threads) for path in files]
    data = [_inputs_for(runtime, inputs, seed) for runtime in runtimes]
    prepared = [r.prepare(arrays) for r, arrays in zip(runtimes, data, strict=True)]
    notes = _machine_notes(threads)
    if inputs is None:
        notes.append("run on random inputs")
    with progress("Profiling", len(files) + 1) as advance:
        startups = []
        for path, arrays in zip(files, data, strict=True):
            startups.append(measure_isolated(path, arrays, threads))
            advance()
        failures = [_warm_up(one, warmup) for one in prepared]
        sound = [i for i, failure in enumerate(failures) if not failure]
        timed = time_in_rounds([prepared[i].run for i in sound], runs, min_seconds, seed)
        advance()
    samples: list[list[float]] = [[] for _ in files]
    for i, times in zip(sound, timed, strict=True):
        samples[i] = times
        failures[i] = _wrong_answer(prepared[i])
    measurements = [
        _measurement(runtime, startup, times, failure, threads, warmup, _batch(arrays), notes)
        for runtime, startup, times, failure, arrays in zip(
            runtimes, startups, samples, failures, data, strict=True
        )
    ]
    return [measurements[0], *(_compared(measurements[0], m, seed) for m in measurements[1:])]


def _check_options(files: Sequence[Path], threads: int, runs: int, warmup: int) -> None:
    """Check everything that needs no loading."""
    if not files:
        raise InputError("no files to profile.", "Name .tflite or .onnx files.")
    for name, value, least in (("threads", threads, 1), ("runs", runs, 1), ("warmup", warmup, 0)):
        if value < least:
            raise InputError(f"{name} must be {least} or more, got {value}.")
    for path in files:
        runtime_for(path)


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


def _warm_up(prepared: Prepared, warmup: int) -> str:
    """Run untimed, at least once; give what went wrong, or an empty string."""
    try:
        for _ in range(max(1, warmup)):
            prepared.run()
    except Exception as error:  # the runtimes raise anything
        return first_line(error)
    return ""


def _wrong_answer(prepared: Prepared) -> str:
    """Why the last run's outputs are no answer; empty if they are one."""
    finite = all(np.isfinite(output).all() for output in prepared.read())
    return "" if finite else "its outputs hold NaN or infinity"


def _measurement(
    runtime: Runtime,
    startup: Startup | str | None,
    samples_ms: Sequence[float],
    failure: str,
    threads: int,
    warmup: int,
    batch: int,
    notes: Sequence[str],
) -> Measurement:
    """The record of one file, not yet compared."""
    if isinstance(startup, str):
        notes = [*notes, f"load time and memory are unavailable: {startup}"]
        startup = None
    return Measurement(
        path=str(runtime.path),
        sha256=sha256(runtime.path),
        size_bytes=runtime.path.stat().st_size,
        runtime=runtime.name,
        runtime_version=runtime.version,
        cpu=cpu_name(),
        threads=threads,
        batch=batch,
        warmup=warmup,
        runs=len(samples_ms),
        startup=startup,
        latency=None if failure else summarize(samples_ms, batch),
        failure=failure,
        notes=tuple(notes),
    )


def _compared(first: Measurement, other: Measurement, seed: int) -> Measurement:
    """The measurement with its comparison, if both files have a latency."""
    if first.latency is None or other.latency is None:
        return other
    comparison = compare(first.path, first.latency, other.latency, seed)
    return msgspec.structs.replace(other, comparison=comparison)


def _machine_notes(threads: int) -> list[str]:
    """What about this machine, now, makes timings doubtful."""
    notes = []
    cores = os.cpu_count() or 1
    load = psutil.getloadavg()[0]
    if load > cores:
        notes.append(f"the machine was busy: load {load:.1f} on {cores} cores")
    if threads > cores:
        notes.append(f"{threads} threads on {cores} cores")
    return notes
