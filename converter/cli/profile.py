from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import figures, options, terminal

if TYPE_CHECKING:
    from dsconvert.deploy import Measurement
    from rich.console import Console


def show(console: Console, result: list[Measurement]) -> None:
    """One line per file; ratios are to the first."""
    from rich.table import Table

    first = result[0]
    console.print(f"{first.cpu}, {first.threads} thread{'s' if first.threads > 1 else ''}")
    table = Table("file", "runtime", box=None, pad_edge=False)
    columns = ("size", "load", "first run", "p50", "p90", "p99", "min", "inf/s", "memory")
    for title in columns:
        table.add_column(title, justify="right")
    table.add_column("against the first")
    for one in result:
        cells = [one.path, f"{one.runtime} {one.runtime_version}", figures.kib(one.size_bytes)]
        start, latency = one.startup, one.latency
        cells.append(figures.ms(start.load_ms if start else None))
        cells.append(figures.ms(start.first_run_ms if start else None))
        if latency is None:
            table.add_row(*cells, *[""] * 6, f"failed: {one.failure}")
            continue
        cells += map(figures.ms, (latency.p50_ms, latency.p90_ms, latency.p99_ms, latency.min_ms))
        cells.append(figures.short(latency.inferences_per_s))
        cells.append(f"{start.peak_memory_mib:.0f} MiB" if start else "–")
        compared = ""
        if one.comparison is not None:
            versus = one.comparison
            compared = (
                f"{1 / versus.ratio:.2f}× as fast "
                f"({1 / versus.high:.2f}–{1 / versus.low:.2f}): {versus.verdict}"
            )
        table.add_row(*cells, compared)
    console.print(table)
    for one in result:
        for note in one.notes:
            console.print(f"{one.path}: {note}")


@click.command()
@click.argument("files", nargs=-1, required=True, type=options.MODEL, metavar="FILE...")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
@click.option("--runs", type=click.IntRange(1), default=200, show_default=True)
@click.option("--warmup", type=click.IntRange(0), default=10, show_default=True)
@click.option("--min-seconds", type=float, default=0.5, show_default=True, help="Per file.")
@click.option("--data", metavar="DATA", help="Real inputs to run on; random ones otherwise.")
@options.preprocessing
@options.common
@terminal.speaks(show)
def profile(
    files: tuple[Path, ...],
    threads: int,
    runs: int,
    warmup: int,
    min_seconds: float,
    data: str | None,
    seed: int,
    **prepare: Any,
) -> list[Measurement]:
    """Measure size, memory and latency of .tflite and .onnx FILEs here, interleaved in one run."""
    from dsconvert.deploy import open_runtime
    from dsconvert.deploy import profile as run

    inputs = None
    if data is not None:
        from dsconvert.models import load_data

        first = open_runtime(files[0], threads=threads)
        inputs = load_data(
            data,
            split="test",
            samples=32,
            seed=seed,
            preprocessing=options.as_preprocessing(**prepare),
            input_names=first.input_names,
            input_shapes=first.input_shapes,
        ).inputs
    return run(
        files,
        threads=threads,
        runs=runs,
        warmup=warmup,
        min_seconds=min_seconds,
        inputs=inputs,
        seed=seed,
        progress=terminal.progress,
    )
