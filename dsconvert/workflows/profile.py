"""Measure size, memory and latency of files, interleaved in one run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from dsconvert.base.arguments import as_path, of_kind
from dsconvert.base.input_size import SizeWords, as_sizes
from dsconvert.base.progress import as_progress

from .data_for import as_data, check_sources
from .stored_preprocessing import settled

if TYPE_CHECKING:
    from dsconvert.base.progress import Progress
    from dsconvert.models.data.preprocess import Preprocessing

    from .data_for import DataSource
    from .results.measured import MeasuredFile
    from .results.shown import Results

_SAMPLES = 32
"""Of data in a file; a model of a fixed batch takes so many at once."""


@dataclass(frozen=True, kw_only=True)
class ProfileOptions:
    """How files are measured.

    Attributes:
        runtime: Fail unless this runtime runs every file; by default each format's own. Of several,
            each file is measured in each, in turns.
        threads: For each runtime.
        cpus: The cores to run on, by number; none for all.
        runs: Timed invocations per file, at least.
        warmup: Untimed invocations before all rounds.
        min_seconds: Seconds per file that the rounds last, at least.
        per_op: Whether to time the operators of each file too, in runs of their own.
        benchmark_binary: TFLite's `benchmark_model`, built for a phone or a board.
        input_size: Of random inputs where the files leave sizes free: see `load`.
        seed: Of random inputs, of the order and of the bootstrap.

    Example:
        >>> import dsconvert as ds
        >>> ds.ProfileOptions(threads=2, per_op=True).runs
        200
    """

    runtime: str | tuple[str, ...] | None = None
    threads: int = 1
    cpus: tuple[int, ...] = ()
    runs: int = 200
    warmup: int = 10
    min_seconds: float = 0.5
    per_op: bool = False
    benchmark_binary: str | Path | None = None
    input_size: SizeWords = ()
    seed: int = 0


def profile(
    files: str | Path | Sequence[str | Path],
    *,
    device: str | Sequence[str] = "host",
    options: ProfileOptions | None = None,
    data: DataSource | None = None,
    preprocessing: Preprocessing | None = None,
    progress: Progress | bool = False,
) -> Results[MeasuredFile]:
    """Measure .tflite and .onnx files on a device, interleaved, and compare them with the first.

    A file that fails, or whose outputs are wrong on the device, gets a `failure` and no latency.
    One that is damaged costs the others nothing; the results have not `passed` then.

    Args:
        files: One file or several; the first is the one that the others are compared with.
        device: "host", "ssh:[USER@]HOST[:PORT]", "adb[:SERIAL]", a name of devices.toml, or one
            that is estimated: "mcu", "ethos-u55-128" …. Several boards run side by side.
        options: Threads, cores, numbers of runs.
        data: Inputs to run on (n, ...); random ones by default.
        preprocessing: What is done to data that are loaded from a file.
        progress: True for a bar on stderr.

    Returns:
        One measurement per file, in the order given; of several devices, device by device.

    Raises:
        InputError: If a file, an option, the inputs or the device cannot be used.
        MissingExtra: If a runtime, or what reaches the device, is not installed.

    Example:
        >>> import dsconvert as ds
        >>> quick = ds.ProfileOptions(runs=5, min_seconds=0)
        >>> (measured,) = ds.profile("model.onnx", options=quick)
        >>> measured.latency.p50_ms > 0
        True
    """
    from dsconvert.deploy.profiling.profile import DAMAGED
    from dsconvert.deploy.profiling.profile import profile as run
    from dsconvert.deploy.runtimes.registry import reference_runtime
    from dsconvert.deploy.runtimes.unknown_files import check_runs_apart

    from .results.measured import MeasuredFile, measurement_blocks
    from .results.shown import Results, shown

    options = of_kind(options, ProfileOptions, "options") or ProfileOptions()
    one = isinstance(files, str | Path | bytes) or not isinstance(files, Sequence)
    named = cast("Sequence[str | Path]", [files] if one else files)
    paths = [as_path(file, "a file") for file in named]
    inputs = None
    check_sources(data)
    if data is not None:
        asked = options.runtime or ()
        names = (asked,) if isinstance(asked, str) else asked
        check_runs_apart(paths[0])
        first = reference_runtime(paths[0], *names).open(paths[0], options.threads)
        inputs = as_data(
            data,
            split="test",
            samples=_SAMPLES,
            seed=options.seed,
            preprocessing=settled(preprocessing, paths, data),
            input_names=first.input_names,
            input_shapes=first.input_shapes,
        ).inputs
    measured = run(
        paths,
        device=device,
        inputs=inputs,
        progress=as_progress(progress),
        **vars(options) | {"input_size": as_sizes(options.input_size)},
    )
    found = [shown(MeasuredFile, one) for one in measured]
    sound = not any(DAMAGED in one.failure for one in found)
    return Results(found, measurement_blocks, passed=sound)
