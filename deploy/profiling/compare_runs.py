"""Two saved runs, file by file: what is faster, if they can be compared at all."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec

from dsconvert.base.errors import InputError
from dsconvert.base.files import read_whole

from .latency import compare
from .records import Comparison, Measurement

Difference = Literal["device", "cpu", "threads", "cpus", "runtime", "version"]
"""What may be allowed to differ: where that is the question, the ratio is its answer."""
DIFFERENCES: tuple[Difference, ...] = get_args(Difference)
_ASPECTS: dict[str, Callable[[Measurement], Any]] = {
    "device": lambda one: one.device.name if one.device else None,
    "cpu": lambda one: one.cpu,
    "threads": lambda one: one.threads,
    "cpus": lambda one: ", ".join(map(str, one.cpus)) or "all",
    "runtime": lambda one: one.runtime,
    "version": lambda one: one.runtime_version,
    "batch": lambda one: one.batch,
}
_RANDOM = "run on random inputs"


class PairedFiles(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file in both runs.

    Attributes:
        first: Its path in the first run.
        second: And in the second.
        same_file: Whether it is the same file, by its hash.
        paired_by: What made them a pair.
        first_p50_ms: Its median time in the first run; None if it has none.
        second_p50_ms: And in the second.
        comparison: The second over the first; None where one of them has no latency.
        notes: What a reader should know.
    """

    first: str
    second: str
    same_file: bool
    paired_by: Literal["hash", "name", "being the only ones left"]
    first_p50_ms: float | None
    second_p50_ms: float | None
    comparison: Comparison | None
    notes: tuple[str, ...] = ()


class RunComparison(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Two runs.

    Attributes:
        device: What both were measured on, by the first run.
        pairs: The files that are in both.
        only_first: Files of the first run that the second has nothing for.
        only_second: And the other way round.
        allowed: What differs and was allowed to.
        notes: What a reader should know of all of it.
    """

    schema: Literal["dsconvert.comparison/1"] = "dsconvert.comparison/1"
    device: str
    pairs: tuple[PairedFiles, ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    allowed: tuple[str, ...]
    notes: tuple[str, ...]


def read_run(path: str | Path) -> list[Measurement]:
    """Read what ``dsconvert profile --json`` printed.

    Raises:
        InputError: If there is no such file, or it holds something else.
    """
    path = Path(path)
    try:
        found = msgspec.json.decode(read_whole(path), type=list[Measurement])
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror}.", code="run-not-found"
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} is no saved run: {error}.",
            "For the outputs of two models there is dsconvert verify A B. "
            "Save a run with: dsconvert profile FILES --json > run.json",
            code="not-a-run",
        ) from error
    if not found:
        raise InputError(f"{path} is a run of no files.", code="run-without-files")
    for one in found:
        latency = one.latency
        times = () if latency is None else (latency.p50_ms, *latency.samples_ms)
        if not all(0 < time < math.inf for time in times):
            raise InputError(
                f"{path} is no saved run: {one.path} has a time of 0 ms, or less, or without end.",
                "Measure again with: dsconvert profile FILES --json > run.json",
                code="not-a-run",
            )
    return found


def compare_runs(
    first: Sequence[Measurement],
    second: Sequence[Measurement],
    *,
    allow: Collection[str] = (),
    seed: int = 0,
) -> RunComparison:
    """Compare the files that are in both runs.

    Files are paired by their hash, then by their name, and if one file of each run is left and it
    is of one format, these two. Nothing of two runs was interleaved: the interval comes from
    samples drawn for each alone, and a difference counts from `latency.RUNS` on.

    Args:
        first: One run.
        second: The other; ratios are its times over the first's.
        allow: What may differ, some of `DIFFERENCES`.
        seed: Of the bootstrap.

    Raises:
        InputError: If the runs are not comparable, with all that differs, or share no file.
    """
    unknown = [name for name in allow if name not in DIFFERENCES]
    if unknown:
        raise InputError(
            f"cannot allow {unknown[0]!r} to differ; allowed: {', '.join(DIFFERENCES)}.",
            code="unknown-difference",
        )
    for run in (first, second):
        if not isinstance(run, Sequence) or not all(isinstance(one, Measurement) for one in run):
            raise InputError(
                f"a run is a {type(run).__name__}; what profile returned is required, or the file "
                "that it was saved to.",
                code="wrong-type",
            )
    estimated = [one.path for one in (*first, *second) if one.estimate is not None]
    if estimated:
        raise InputError(
            f"{estimated[0]} was not measured but estimated; estimates have no noise to compare.",
            "Estimate both files in one run: dsconvert profile A B --device …",
            code="estimates-not-comparable",
        )
    pairs, alone, others = _paired(first, second)
    if not pairs:
        raise InputError(
            f"the runs have no file in common: {_names(first)} and {_names(second)}.",
            "Files are the same by their hash or their name.",
            code="no-file-in-common",
        )
    differing = _differences(pairs)
    refused = {name: text for name, text in differing.items() if name not in allow}
    if refused:
        options = " ".join(f"--allow {name}" for name in refused if name in DIFFERENCES)
        hint = f"If that is what you ask about: {options}" if "batch" not in refused else ""
        raise InputError(
            f"the runs are not comparable: {'; '.join(refused.values())}.",
            hint,
            code="runs-not-comparable",
        )
    device = first[0].device
    return RunComparison(
        device=device.name if device else "host",
        pairs=tuple(_compared(a, b, how, seed) for a, b, how in pairs),
        only_first=tuple(one.path for one in alone),
        only_second=tuple(one.path for one in others),
        allowed=tuple(differing.values()),
        notes=_notes(first[0], second[0]),
    )


_Pair = tuple[Measurement, Measurement, Literal["hash", "name", "being the only ones left"]]


def _paired(
    first: Sequence[Measurement], second: Sequence[Measurement]
) -> tuple[list[_Pair], list[Measurement], list[Measurement]]:
    """Return the pairs in the order of the first run, and what is left of each run."""
    left, right = list(first), list(second)
    found: list[_Pair] = []
    ways: tuple[tuple[Literal["hash", "name"], Callable[[Measurement], str]], ...] = (
        ("hash", lambda one: one.sha256),
        ("name", lambda one: Path(one.path).name),
    )
    for how, of in ways:
        for one in list(left):
            same = [other for other in right if of(other) == of(one)]
            if same:
                found.append((one, same[0], how))
                left.remove(one)
                right.remove(same[0])
    if len(left) == len(right) == 1 and left[0].runtime == right[0].runtime:
        found.append((left.pop(), right.pop(), "being the only ones left"))
    places = {id(one): i for i, one in enumerate(first)}
    return sorted(found, key=lambda pair: places[id(pair[0])]), left, right


def _differences(pairs: Sequence[_Pair]) -> dict[str, str]:
    """Return what differs within pairs, by aspect, a phrase each."""
    found: dict[str, str] = {}
    for a, b, _ in pairs:
        for name, of in _ASPECTS.items():
            if name == "version" and a.runtime != b.runtime:
                continue
            if of(a) != of(b):
                found.setdefault(name, f"{_WORDS[name]} {of(a)} and {of(b)}")
    return found


_WORDS = {
    "device": "the devices are",
    "cpu": "the processors are",
    "threads": "the threads are",
    "cpus": "the cores are",
    "runtime": "the runtimes are",
    "version": "the runtime's versions are",
    "batch": "the samples per invocation are",
}


def _compared(a: Measurement, b: Measurement, how: Any, seed: int) -> PairedFiles:
    comparison = None
    if a.latency is not None and b.latency is not None:
        comparison = compare(a.path, a.latency, b.latency, seed, paired=False)
    failures = ((a, "first"), (b, "second"))
    return PairedFiles(
        first=a.path,
        second=b.path,
        same_file=a.sha256 == b.sha256,
        paired_by=how,
        first_p50_ms=a.latency.p50_ms if a.latency else None,
        second_p50_ms=b.latency.p50_ms if b.latency else None,
        comparison=comparison,
        notes=tuple(
            f"failed in the {run} run: {one.failure}" for one, run in failures if one.failure
        ),
    )


def _notes(a: Measurement, b: Measurement) -> tuple[str, ...]:
    """Return what does not forbid a comparison and may explain a difference."""
    found = []
    for one, which in ((a, "first"), (b, "second")):
        found += [f"in the {which} run {note}" for note in one.notes if note != _RANDOM]
    if (_RANDOM in a.notes) != (_RANDOM in b.notes):
        found.append("one of the runs is on random inputs")
    if a.before is not None and b.before is not None and a.before.governor != b.before.governor:
        found.append(f"the governors are {a.before.governor} and {b.before.governor}")
    if a.device is not None and b.device is not None and a.device.system != b.device.system:
        found.append(f"the systems are {a.device.system} and {b.device.system}")
    return tuple(found)


def _names(run: Sequence[Measurement]) -> str:
    return ", ".join(Path(one.path).name for one in run)
