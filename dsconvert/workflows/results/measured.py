"""What profiling measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from dsconvert.base.tables import Block, Shown, Table
from dsconvert.deploy.profiling.compare_runs import RunComparison
from dsconvert.deploy.profiling.records import Measurement
from dsconvert.formats.layer_names import operator_layer

from .. import formatting

if TYPE_CHECKING:
    from dsconvert.deploy.devices.records import OperatorTime
    from dsconvert.deploy.profiling.records import Comparison

_KINDS = ("convolution", "depthwise", "pointwise", "dense", "other", "unknown")
_SLOWEST = 8


class MeasuredFile(Shown, Measurement, frozen=True, kw_only=True):
    """The figures of one file on one device."""

    def blocks(self) -> Iterator[Block]:
        """Yield the times, then everything else, then the operators."""
        return measurement_blocks([self])


def measurement_blocks(result: Sequence[Measurement]) -> Iterator[Block]:
    """Return what each device found."""
    for number, (_, found) in enumerate(groupby(result, key=_device)):
        if number:
            yield ""
        yield from _of_device(list(found))


def _device(one: Measurement) -> str:
    """Return the device's name; empty for one that was not reached, and for estimates."""
    return "" if one.device is None else one.device.name


def _of_device(result: list[Measurement]) -> Iterator[Block]:
    """Yield the times, one line per file; then everything else; then the operators."""
    if result[0].estimate is not None:
        yield _estimates(result)
    else:
        if result[0].cpu:
            yield _where(result[0])
        yield _times(result)
        yield from _figures(result)
    for one in result:
        yield from _operators(one)
    common = [note for note in result[0].notes if all(note in one.notes for one in result)]
    yield from (f"Note: {note}" for note in common)
    for one in result:
        yield from (f"{one.path}: {note}" for note in one.notes if note not in common)


def _where(first: Measurement) -> str:
    """Return what was measured on, in one line."""
    threads = f"{first.threads} thread{'s' if first.threads > 1 else ''}"
    if first.cpus:
        threads += f" on core{'s' if len(first.cpus) > 1 else ''} {', '.join(map(str, first.cpus))}"
    device = first.device
    if device is None or device.name == "host":
        return f"{first.cpu}, {threads}"
    return f"{device.name}: {first.cpu}, {device.system}, {threads}"


def _times(result: list[Measurement]) -> Table:
    """Return one line per file; ratios are to the first."""
    numbers = ("size", "load", "first run", "p50", "p90", "p99", "min", "inf/s", "memory")
    least = ("min", "inf/s", "p90", "load", "first run", "memory", "p99")
    table = Table(("file", "runtime"), numbers, ("against the first",), least=least)
    for one in result:
        cells = [one.path, f"{one.runtime} {one.runtime_version}", formatting.kib(one.size_bytes)]
        start, latency = one.startup, one.latency
        cells.append(formatting.ms(start.load_ms if start else None))
        cells.append(formatting.ms(start.first_run_ms if start else None))
        if latency is None:
            table.add(*cells, *[""] * 6, f"failed: {one.failure}")
            continue
        cells += map(
            formatting.ms, (latency.p50_ms, latency.p90_ms, latency.p99_ms, latency.min_ms)
        )
        cells.append(formatting.short(latency.inferences_per_s))
        cells.append(f"{start.peak_memory_mib:.0f} MiB" if start else "–")
        table.add(*cells, _versus(one.comparison) if one.comparison else "")
    return table


def _versus(one: Comparison) -> str:
    if min(one.ratio, one.low, one.high) <= 0:  # of a file that somebody changed
        return "unavailable: a ratio of 0 or less"
    return f"{1 / one.ratio:.2f}× as fast ({1 / one.high:.2f}–{1 / one.low:.2f}): {one.verdict}"


def _figures(result: list[Measurement]) -> Iterator[Block]:
    """Return what a file computes and holds, and the rest of its times."""
    numbers = ("MACs", "GMAC/s", "weights", "activations", "p95", "max", "mean", "std", "runs")
    least = ("std", "mean", "max", "GMAC/s", "runs", "p95")
    table = Table(("file",), numbers, least=least)
    reasons: dict[str, None] = {}
    for one in result:
        latency = one.latency
        cells = [one.path, formatting.short(one.macs) if isinstance(one.macs, int) else "–"]
        cells.append("–" if one.gmacs_per_s is None else f"{one.gmacs_per_s:.3g}")
        cells += [
            formatting.kib(size) if isinstance(size, int) else "–"
            for size in (one.weight_bytes, one.activation_bytes)
        ]
        for name, figure in (
            ("MACs", one.macs),
            ("weights", one.weight_bytes),
            ("activations", one.activation_bytes),
        ):
            if isinstance(figure, str):
                reasons[f"{one.path}: {name} {figure}"] = None
        times = latency and (latency.p95_ms, latency.max_ms, latency.mean_ms, latency.std_ms)
        table.add(*cells, *map(formatting.ms, times or [None] * 4), str(one.runs))
    yield ""
    yield table
    yield from reasons


def _operators(one: Measurement) -> Iterator[Block]:
    """Tell where the time of a file goes: by kind, and the slowest operators."""
    if isinstance(one.operators, str):
        yield f"\n{one.path}: operators {one.operators}"
    if isinstance(one.operators, str) or not one.operators:
        return
    total = sum(op.p50_ms for op in one.operators)
    kinds = (f"{kind} {_share(one.operators, kind)}" for kind in _KINDS)
    yield (
        f"\n{one.path}: {len(one.operators)} operators, {formatting.ms(total)} while profiled: "
        + ", ".join(text for text in kinds if not text.endswith(" 0.0 %"))
    )
    slowest = sorted(one.operators, key=lambda op: op.p50_ms, reverse=True)[:_SLOWEST]
    table = Table(("slowest", "kind", "runs as"), ("p50", "share"), least=("runs as",))
    for op in slowest:
        name = operator_layer(op.name) if one.path.endswith(".tflite") else op.name
        name = name if len(name) <= 60 else f"…{name[-59:]}"
        table.add(name, op.kind, op.type, formatting.ms(op.p50_ms), formatting.percent(op.share))
    yield table


def _share(operators: tuple[OperatorTime, ...], kind: str) -> str:
    return formatting.percent(sum(op.share for op in operators if op.kind == kind))


def _estimates(result: list[Measurement]) -> Table:
    """Return what a device that is not there would need."""
    numbers = ("size", "cycles", "time", "SRAM", "flash", "DRAM", "arena", "on the NPU")
    least = ("DRAM", "flash", "size", "SRAM")
    table = Table(("file",), numbers, ("estimated by",), least=least)
    for one in result:
        estimate = one.estimate
        if estimate is None:
            table.add(one.path, formatting.kib(one.size_bytes), *[""] * 7, one.failure)
            continue
        memory = (estimate.sram_kib, estimate.flash_kib, estimate.dram_kib, estimate.arena_kib)
        table.add(
            one.path,
            formatting.kib(one.size_bytes),
            formatting.short(estimate.cycles),
            formatting.ms(estimate.inference_ms),
            *("–" if kib is None else formatting.kib(round(1024 * kib)) for kib in memory),
            formatting.percent(estimate.npu_share),
            estimate.method,
        )
    return table.without_empty()


class ComparedRuns(Shown, RunComparison, frozen=True, kw_only=True):
    """Two saved runs, file by file."""

    def blocks(self) -> Iterator[Block]:
        """Yield one line per pair of files."""
        table = Table(
            ("first run", "second run"), ("p50", "p50"), ("the second against the first",)
        )
        for pair in self.pairs:
            second = pair.second if not pair.same_file else f"{pair.second} (the same file)"
            medians = (formatting.ms(pair.first_p50_ms), formatting.ms(pair.second_p50_ms))
            versus = _versus(pair.comparison) if pair.comparison else "–"
            table.add(pair.first, second, *medians, versus)
        yield table
        for pair in self.pairs:
            yield from (f"{pair.first}: {note}" for note in pair.notes)
        yield from (f"{path}: only in the first run" for path in self.only_first)
        yield from (f"{path}: only in the second run" for path in self.only_second)
        yield from (f"Allowed to differ: {difference}" for difference in self.allowed)
        yield from (f"Note: {note}" for note in self.notes)
