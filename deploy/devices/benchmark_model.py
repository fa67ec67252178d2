"""TFLite's own command line benchmark: what it is told, and what it prints.

Three generations of it print three kinds of text, and none says its version:

- until 2020, "Average inference timings in us: Warmup: …, Init: …, no stats: …";
- since then, "Inference timings in us: Init: …, First inference: …, Warmup (avg): …,
  Inference (avg): …", with p5, median and p95 in the line of the runs since 2023;
- LiteRT's, a list of "Inference (avg): 0.46 ms (2112 runs)" under "BENCHMARK RESULTS".

All of them print a line "count=…" for the warm-up and one for the runs. A flag that a binary does
not know is left aside with a warning, which `parse` reports. Sources: ``tensorflow/lite/tools/
benchmark`` of TensorFlow, ``tflite/tools/benchmark`` and ``litert/tools`` of LiteRT.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .device import OperatorTime

NAME = "benchmark_model"
RUNTIME = "litert"
"""The runtime whose files it runs, with that runtime's kernels."""
_LOG = re.compile(
    r"^(?:\d\d-\d\d )?(?:\d\d:\d\d:\d\d\.\d+ )?(?:[VDIWEF]/[\w.]+ *\( *\d+\): )?"
    r"(?P<level>(?:VERBOSE|DEBUG|INFO|WARN(?:ING)?|ERROR|FATAL): )?(?:\[[\w./-]+:\d+\] )?"
)
_FIELDS = re.compile(r"(\w+)=([-+\w.]+)")
_TIMINGS = re.compile(
    r"^Inference timings in us: Init: (\S+), First inference: (\S+), "
    r"Warmup \(avg\): \S+, Inference \(avg\): (\S+)"
)
_OLD_TIMINGS = re.compile(
    r"^Average inference timings in us: Warmup: \S+, Init: (\S+), no stats: (\S+)"
)
_MEMORY = re.compile(
    r"^(?:Memory footprint delta from the start of the tool|Peak memory footprint) \(MB\): "
    r"init=\S+ overall=(\S+)"
)
_SESSION = re.compile(r"^Initialized session in ([\d.]+)ms")
_PEAK = re.compile(
    r"^(?:Overall peak memory footprint \(MB\) via periodic monitoring|Peak memory): +([\d.]+)"
)
_LITERT = re.compile(
    r"^(Model initialization|Warmup \(\w+\)|Inference \(\w+\)|(?:Init|Overall) footprint): +"
    r"([\d.e+]+)(?: ms)?(?: \((\d+) runs\))?"
)
_IGNORED = re.compile(r"^Unconsumed cmdline flags: (.*)")
_DELEGATE = re.compile(r"Replacing (\d+) out of (\d+) node\(s\) with delegate \((\w+)\)")
_EXPLICIT = re.compile(r"^(?:Explicitly applied|Applied) (\w+) delegate")
_CREATED = re.compile(r"^Created TensorFlow Lite (?:(\w+) delegate for CPU|delegate for (\w+))")
_TROUBLE = re.compile(
    r"^Failed |^Benchmarking failed|^Aborted|^Segmentation fault|^Killed|^Illegal instruction"
    r"|^Bus error|^CANNOT LINK|: not executable: |: can't execute: |: Permission denied$"
    r"|: inaccessible or not found$|: No such file or directory$|: Exec format error$"
    r"|^Encountered unresolved custom op|^Didn't find op for builtin|failed to (?:prepare|invoke)"
)
_HARMLESS = re.compile(r"^Failed to get the input model file size")
_NO_OPERATOR = ("AllocateTensors", "ModifyGraphWithDelegate")
"""Rows that belong to the start, not to an invocation."""
_ROW = re.compile(
    r"^\s*(?P<type>\S.*?)\s+(?:-?[\d.]+\s+)?[\d.]+\s+(?P<average>[\d.]+)\s+[\d.]+%\s+[\d.]+%\s+"
    r"[\d.]+\s+\d+\s+(?P<name>\S.*?)\s*$"
)


class InputFile(NamedTuple):
    """A file with one input's values, as the model stores them, on the device."""

    path: str
    shape: tuple[int, ...]


def arguments(
    model: str,
    *,
    threads: int = 1,
    runs: int = 50,
    warmup: int = 1,
    min_seconds: float = 0.0,
    max_seconds: float = 150.0,
    per_op: bool = False,
    inputs: Sequence[InputFile] | None = None,
    outputs: str | None = None,
) -> list[str]:
    """The arguments, each a word of its own; whoever joins them for a shell has to quote them.

    Args:
        model: The .tflite file, on the device.
        threads: Of the runtime.
        runs: Timed invocations, at least.
        warmup: Untimed invocations before.
        min_seconds: The timed ones last at least so long.
        max_seconds: After so long no further one is begun.
        per_op: Whether to time the operators; this slows the invocations.
        inputs: One file per input, in the order of the model; None for the tool's own random ones.
            Binaries of LiteRT's new API know random inputs only and say so.
        outputs: The file that is to hold the outputs of the last run, one after the other.
    """
    words = [
        f"--graph={model}",
        f"--num_threads={threads}",
        f"--num_runs={runs}",
        f"--min_secs={min_seconds:g}",
        f"--max_secs={max_seconds:g}",
        f"--warmup_runs={max(1, warmup)}",  # with none there is no first inference to report
        "--warmup_min_secs=0",
    ]
    if inputs:
        # The names need not be the model's: the order counts. Its own may hold commas and colons.
        names = [f"input{i}" for i in range(len(inputs))]
        shapes = (",".join(map(str, file.shape)) for file in inputs)
        files = (f"{name}:{file.path}" for name, file in zip(names, inputs, strict=True))
        words += [
            f"--input_layer={','.join(names)}",
            f"--input_layer_shape={':'.join(shapes)}",
            f"--input_layer_value_files={','.join(files)}",
        ]
    if outputs is not None:
        words.append(f"--output_filepath={outputs}")
    if per_op:  # the second is what LiteRT's binary calls it
        words += ["--enable_op_profiling=true", "--use_profiler=true"]
    return words


@dataclass(frozen=True)
class BenchmarkModelResult:
    """What one process printed; None is "it did not say".

    Attributes:
        init_ms: Loading and preparing the model.
        first_ms: The first invocation, of the warm-up.
        count: How many were timed.
        avg_ms: Their average.
        min_ms: The fastest.
        max_ms: The slowest.
        std_ms: Their standard deviation.
        p50_ms: Their median, which binaries since 2023 print.
        p95_ms: Their 95th percentile, likewise.
        memory_mib: What loading and running added to the process. The tool writes MB and means
            MiB.
        peak_memory_mib: The peak by the tool's own monitor, if that was asked for.
        operators: The time of each operator, if that was asked for: averages, in order of
            execution. Inside a delegate they are the delegate's.
        delegates: What took nodes over, e.g. "TfLiteXNNPackDelegate: 5 of 6 nodes".
        ignored_flags: Flags that this binary does not know.
        errors: Lines that say what went wrong.
    """

    init_ms: float | None = None
    first_ms: float | None = None
    count: int = 0
    avg_ms: float | None = None
    min_ms: float | None = None
    max_ms: float | None = None
    std_ms: float | None = None
    p50_ms: float | None = None
    p95_ms: float | None = None
    memory_mib: float | None = None
    peak_memory_mib: float | None = None
    operators: tuple[OperatorTime, ...] = ()
    delegates: tuple[str, ...] = ()
    ignored_flags: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()

    @property
    def typical_ms(self) -> float | None:
        """The median; the average where the binary prints no median."""
        return self.avg_ms if self.p50_ms is None else self.p50_ms

    @property
    def failure(self) -> str:
        """Tell why there are no timings, in one line; empty if there are."""
        if self.avg_ms is not None:
            return ""
        return self.errors[0] if self.errors else "it printed no timings"


def parse(text: str) -> BenchmarkModelResult:
    """Read what a process printed, on both of its streams; in any order of the two.

    Text that holds no timings gives a result whose `failure` says why.
    """
    found: dict[str, float] = {}
    runs: list[dict[str, float]] = []
    tables: list[list[OperatorTime]] = []
    delegates: dict[str, None] = {}
    ignored: list[str] = []
    errors: list[str] = []
    in_table = False
    for raw in text.splitlines():
        prefix = _LOG.match(raw)
        assert prefix is not None, "every part of it may be missing"
        line = raw[prefix.end() :].rstrip()
        if "= Run Order =" in line:
            in_table = True
            tables.append([])
        elif line.startswith("===="):
            in_table = False
        elif in_table and (row := _ROW.match(line)):
            if row["type"] not in _NO_OPERATOR:
                tables[-1].append(_operator(row))
        elif line.startswith("count="):
            runs.append({key: _number(value) for key, value in _FIELDS.findall(line)})
        else:
            _read(line, found)
            for name in _delegate(line):
                delegates[name] = None
            if flags := _IGNORED.match(line):
                ignored += flags[1].split()
            elif _is_error(line, prefix["level"]):
                errors.append(line.strip())
    warmup, timed = (runs[0], runs[-1]) if len(runs) > 1 else ({}, {})
    average = _ms(timed, "avg", "curr")
    return BenchmarkModelResult(
        init_ms=found.get("init"),
        first_ms=_ms(warmup, "first", "curr") or found.get("first"),
        count=int(timed.get("count", found.get("count", 0))),
        avg_ms=found.get("avg") if average is None else average,
        min_ms=_ms(timed, "min", "curr") or found.get("min"),
        max_ms=_ms(timed, "max", "curr") or found.get("max"),
        std_ms=_ms(timed, "std"),
        p50_ms=_ms(timed, "median") or found.get("median"),
        p95_ms=_ms(timed, "p95") or found.get("p95"),
        memory_mib=found.get("memory"),
        peak_memory_mib=found.get("peak_memory"),
        operators=_shares(tables[-1]) if tables else (),
        delegates=tuple(delegates),
        ignored_flags=tuple(ignored),
        errors=tuple(dict.fromkeys(errors)),
    )


_LITERT_NAMES = {
    "Model initialization": "init",
    "Overall footprint": "memory",
    "Warmup (first)": "first",
} | {f"Inference ({name})": name for name in ("avg", "min", "max", "median", "p95")}


def _read(line: str, found: dict[str, float]) -> None:
    """The summary's lines, of any generation; times in milliseconds.

    What LiteRT's binary says last is rounded to two digits: what was found before is better.
    """
    if timings := _TIMINGS.match(line):
        init, first, average = (_number(value) / 1e3 for value in timings.groups())
        found |= {"init": init, "first": first, "avg": average}
    elif timings := _OLD_TIMINGS.match(line):
        init, average = (_number(value) / 1e3 for value in timings.groups())
        found |= {"init": init, "avg": average}
    elif session := _SESSION.match(line):
        found["init"] = _number(session[1])
    elif memory := _MEMORY.match(line):
        found["memory"] = _number(memory[1])
    elif peak := _PEAK.match(line):
        found["peak_memory"] = _number(peak[1])
    elif (said := _LITERT.match(line)) and (name := _LITERT_NAMES.get(said[1])):
        found.setdefault(name, _number(said[2]))
        if said[3] and name == "avg":
            found.setdefault("count", int(said[3]))


def _delegate(line: str) -> tuple[str, ...]:
    """Return what a line says took nodes over."""
    if replaced := _DELEGATE.search(line):
        return (f"{replaced[3]}: {replaced[1]} of {replaced[2]} nodes",)
    if explicit := _EXPLICIT.match(line):
        return (explicit[1],)
    if created := _CREATED.match(line):
        return (created[1] or created[2],)
    return ()


def _is_error(line: str, level: str | None) -> bool:
    if _HARMLESS.match(line):
        return False
    return (level or "").startswith(("ERROR", "FATAL")) or _TROUBLE.search(line) is not None


def _operator(row: re.Match[str]) -> OperatorTime:
    return OperatorTime(
        name=row["name"], type=row["type"].strip(), p50_ms=float(row["average"]), share=0.0
    )


def _shares(rows: Sequence[OperatorTime]) -> tuple[OperatorTime, ...]:
    total = sum(row.p50_ms for row in rows) or 1.0
    return tuple(
        OperatorTime(name=row.name, type=row.type, p50_ms=row.p50_ms, share=row.p50_ms / total)
        for row in rows
    )


def _ms(run: dict[str, float], *keys: str) -> float | None:
    """The first of these fields that is there, in milliseconds; a single run has "curr" alone."""
    return next((run[key] / 1e3 for key in keys if key in run), None)


def _number(text: str) -> float:
    try:
        return float(text.rstrip(",)"))
    except ValueError:  # "nan" is one, anything else is no figure
        return float("nan")
