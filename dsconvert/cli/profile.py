from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dsconvert.deploy.runtimes.registry import RUNTIMES

from . import formatting, options, terminal

if TYPE_CHECKING:
    from rich.console import Console

    from dsconvert.deploy.devices.records import OperatorTime
    from dsconvert.deploy.profiling.records import Measurement

_KINDS = ("convolution", "depthwise", "pointwise", "dense", "other", "unknown")
_SLOWEST = 8


class Cpus(click.ParamType[tuple[int, ...]]):
    """Cores by number, as the kernel lists them: 4-7 or 0,2,4."""

    name = "cores"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """Parse a list of numbers and ranges."""
        if isinstance(value, tuple):
            return value
        found: set[int] = set()
        for part in value.split(","):
            low, dash, high = part.strip().partition("-")
            if (
                not low.isdecimal()
                or (dash and not high.isdecimal())
                or int(high or low) < int(low)
            ):
                self.fail(f"{value!r} names no cores; write them as 4-7 or 0,2,4.", param, ctx)
            found |= set(range(int(low), int(high or low) + 1))
        return tuple(sorted(found))


def show(console: Console, result: list[Measurement]) -> None:
    """What each device found."""
    for number, (_, found) in enumerate(groupby(result, key=_device)):
        if number:
            console.print()
        _show_device(console, list(found))


def _device(one: Measurement) -> str:
    """The device's name; empty for one that was not reached, and for estimates."""
    return "" if one.device is None else one.device.name


def _show_device(console: Console, result: list[Measurement]) -> None:
    """The times, one line per file; then everything else; then the operators."""
    if result[0].estimate is not None:
        _show_estimates(console, result)
    else:
        if result[0].cpu:
            console.print(_where(result[0]))
        _show_times(console, result)
        _show_figures(console, result)
    for one in result:
        _show_operators(console, one)
    common = [note for note in result[0].notes if all(note in one.notes for one in result)]
    for note in common:
        console.print(f"Note: {note}")
    for one in result:
        for note in (note for note in one.notes if note not in common):
            console.print(f"{one.path}: {note}")


def _where(first: Measurement) -> str:
    """What was measured on, in one line."""
    threads = f"{first.threads} thread{'s' if first.threads > 1 else ''}"
    if first.cpus:
        threads += f" on core{'s' if len(first.cpus) > 1 else ''} {', '.join(map(str, first.cpus))}"
    device = first.device
    if device is None or device.name == "host":
        return f"{first.cpu}, {threads}"
    return f"{device.name}: {first.cpu}, {device.system}, {threads}"


def _show_times(console: Console, result: list[Measurement]) -> None:
    """One line per file; ratios are to the first."""
    from rich.table import Table

    table = Table("file", "runtime", box=None, pad_edge=False)
    columns = ("size", "load", "first run", "p50", "p90", "p99", "min", "inf/s", "memory")
    for title in columns:
        table.add_column(title, justify="right")
    table.add_column("against the first")
    for one in result:
        cells = [one.path, f"{one.runtime} {one.runtime_version}", formatting.kib(one.size_bytes)]
        start, latency = one.startup, one.latency
        cells.append(formatting.ms(start.load_ms if start else None))
        cells.append(formatting.ms(start.first_run_ms if start else None))
        if latency is None:
            table.add_row(*cells, *[""] * 6, f"failed: {one.failure}")
            continue
        cells += map(
            formatting.ms, (latency.p50_ms, latency.p90_ms, latency.p99_ms, latency.min_ms)
        )
        cells.append(formatting.short(latency.inferences_per_s))
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


def _show_figures(console: Console, result: list[Measurement]) -> None:
    """What a file computes and holds, and the rest of its times."""
    from rich.table import Table

    table = Table("file", box=None, pad_edge=False)
    columns = ("MACs", "GMAC/s", "weights", "activations", "p95", "max", "mean", "std", "runs")
    for title in columns:
        table.add_column(title, justify="right")
    reasons: dict[str, None] = {}
    for one in result:
        latency = one.latency
        cells = [one.path, formatting.short(one.macs) if isinstance(one.macs, int) else "–"]
        cells.append("–" if one.gmacs_per_s is None else f"{one.gmacs_per_s:.3g}")
        cells += [
            formatting.kib(size) if isinstance(size, int) else "–"
            for size in (one.weight_bytes, one.activation_bytes)
        ]
        for figure in (one.macs, one.weight_bytes, one.activation_bytes):
            if isinstance(figure, str):
                reasons[f"{one.path}: {figure}"] = None
        times = latency and (latency.p95_ms, latency.max_ms, latency.mean_ms, latency.std_ms)
        table.add_row(*cells, *map(formatting.ms, times or [None] * 4), str(one.runs))
    console.print()
    console.print(table)
    for reason in reasons:
        console.print(reason)


def _show_operators(console: Console, one: Measurement) -> None:
    """Where the time of a file goes: by kind, and the slowest operators."""
    from rich.table import Table

    if isinstance(one.operators, str):
        console.print(f"\n{one.path}: operators {one.operators}")
    if isinstance(one.operators, str) or not one.operators:
        return
    total = sum(op.p50_ms for op in one.operators)
    kinds = (f"{kind} {_share(one.operators, kind)}" for kind in _KINDS)
    console.print(
        f"\n{one.path}: {len(one.operators)} operators, {formatting.ms(total)} while profiled: "
        + ", ".join(text for text in kinds if not text.endswith(" 0.0 %"))
    )
    slowest = sorted(one.operators, key=lambda op: op.p50_ms, reverse=True)[:_SLOWEST]
    table = Table("slowest", "kind", "runs as", box=None, pad_edge=False)
    table.add_column("p50", justify="right")
    table.add_column("share", justify="right")
    for op in slowest:
        name = op.name if len(op.name) <= 60 else f"…{op.name[-59:]}"
        table.add_row(
            name, op.kind, op.type, formatting.ms(op.p50_ms), formatting.percent(op.share)
        )
    console.print(table)


def _share(operators: tuple[OperatorTime, ...], kind: str) -> str:
    return formatting.percent(sum(op.share for op in operators if op.kind == kind))


def _show_estimates(console: Console, result: list[Measurement]) -> None:
    """What a device that is not there would need."""
    from rich.table import Table

    columns = ("size", "cycles", "time", "SRAM", "flash", "DRAM", "arena", "on the NPU")
    table = Table("file", box=None, pad_edge=False)
    for title in columns:
        table.add_column(title, justify="right")
    table.add_column("estimated by")
    for one in result:
        estimate = one.estimate
        if estimate is None:
            table.add_row(one.path, formatting.kib(one.size_bytes), *[""] * 7, one.failure)
            continue
        memory = (estimate.sram_kib, estimate.flash_kib, estimate.dram_kib, estimate.arena_kib)
        table.add_row(
            one.path,
            formatting.kib(one.size_bytes),
            formatting.short(estimate.cycles),
            formatting.ms(estimate.inference_ms),
            *("–" if kib is None else formatting.kib(round(1024 * kib)) for kib in memory),
            formatting.percent(estimate.npu_share),
            estimate.method,
        )
    console.print(table)


@click.command()
@click.argument("files", nargs=-1, required=True, type=options.MODEL, metavar="FILE...")
@click.option(
    "--device",
    "devices",
    default=("host",),
    multiple=True,
    show_default=True,
    metavar="NAME",
    help="host, ssh:[USER@]HOST[:PORT], adb[:SERIAL] or a name that you gave one (see devices); "
    "by estimate: mcu, ethos-u55-128 …. Several boards and phones run side by side.",
)
@click.option(
    "--benchmark-binary",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="TFLite's benchmark_model, built for the phone or the board.",
)
@click.option(
    "--runtime",
    "runtimes",
    type=click.Choice(list(RUNTIMES)),
    multiple=True,
    help="Fail unless it runs every file; by default each format's own. Given several times, each "
    "file is measured in each, in turns.",
)
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
@click.option("--cpus", type=Cpus(), default=(), metavar="N-M|N,N…", help="Run on these cores.")
@click.option("--runs", type=click.IntRange(1), default=200, show_default=True)
@click.option("--warmup", type=click.IntRange(0), default=10, show_default=True)
@click.option("--min-seconds", type=float, default=0.5, show_default=True, help="Per file.")
@click.option("--per-op", is_flag=True, help="Time each operator too, in runs of their own.")
@click.option("--data", metavar="DATA", help="Real inputs to run on; random ones otherwise.")
@options.preprocessing
@options.common
@terminal.speaks(show)
def profile(
    files: tuple[Path, ...],
    devices: tuple[str, ...],
    benchmark_binary: Path | None,
    runtimes: tuple[str, ...],
    threads: int,
    cpus: tuple[int, ...],
    runs: int,
    warmup: int,
    min_seconds: float,
    per_op: bool,
    data: str | None,
    seed: int,
    **prepare: Any,
) -> list[Measurement]:
    """Measure size, memory and latency of .tflite and .onnx FILEs, interleaved in one run.

    \b
    They run on this machine, on a board or a phone, or an accelerator is estimated:
      dsconvert profile a.tflite b.tflite --cpus 2,3 --threads 2 --per-op
      dsconvert profile a.tflite b.tflite --device ssh:pi@board --json > board.json
      dsconvert profile a.tflite --device ethos-u55-128
    """  # noqa: D301 - click reads \b as the control character
    from dsconvert.deploy.profiling.profile import profile as run
    from dsconvert.deploy.runtimes.registry import open_runtime

    inputs = None
    if data is not None:
        from dsconvert.models.data.datasets import load_data

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
        device=devices,
        benchmark_binary=benchmark_binary,
        runtime=runtimes,
        threads=threads,
        cpus=cpus,
        runs=runs,
        warmup=warmup,
        min_seconds=min_seconds,
        per_op=per_op,
        inputs=inputs,
        seed=seed,
        progress=terminal.progress,
    )
