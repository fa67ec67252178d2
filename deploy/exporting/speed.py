"""How much slower or faster one file is than another, well enough for a warning."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from dsconvert.base.predictor import Array

from ..runner.timing import time_in_rounds
from ..runtimes.registry import open_runtime

_RUNS = 20
_SECONDS = 0.2
_TOO_SLOW = 1.0
"""Seconds of one invocation above which nothing is timed."""


def time_ratio(path: Path, baseline: Path, inputs: Sequence[Array]) -> float | None:
    """Return the file's least time over the baseline's, one thread, interleaved.

    The least, since whatever else runs can only add to a time. `profile` measures properly; this
    takes half a second.

    Args:
        path: The file.
        baseline: The file to compare it with.
        inputs: One array per input, (n, ...); one batch of them is used.

    Returns:
        The ratio; None if one run of either takes longer than a second, or fails.

    Raises:
        InputError: If either cannot take them.
    """
    prepared = []
    for file in (baseline, path):
        runtime = open_runtime(file)
        once = list(inputs)
        if runtime.has_batch:
            rows = [i % len(inputs[0]) for i in range(runtime.batch or 1)]
            once = [array[rows] for array in inputs]
        prepared.append(runtime.prepare(once).run)
    try:
        return _ratio(*prepared)
    except Exception:  # sizes of outputs that a runtime foresees wrongly: no time, and no error
        return None


def _ratio(baseline: Callable[[], object], other: Callable[[], object]) -> float | None:
    for run in (baseline, other):
        run()
        start = time.perf_counter()
        run()
        if time.perf_counter() - start > _TOO_SLOW:
            return None
    first, second = (min(t) for t in time_in_rounds([baseline, other], _RUNS, _SECONDS, 0))
    return second / first
