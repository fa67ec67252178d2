"""How much slower or faster one file is than another, well enough for a warning."""

from __future__ import annotations

import time
from collections.abc import Sequence
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
        The ratio; None if one run of either takes longer than a second.

    Raises:
        InputError: If either cannot run on them.
    """
    prepared = []
    for file in (baseline, path):
        runtime = open_runtime(file)
        rows = [i % len(inputs[0]) for i in range(runtime.batch or 1)]
        one = runtime.prepare([array[rows] for array in inputs])
        one.run()
        start = time.perf_counter()
        one.run()
        if time.perf_counter() - start > _TOO_SLOW:
            return None
        prepared.append(one)
    first, other = (min(t) for t in time_in_rounds([p.run for p in prepared], _RUNS, _SECONDS, 0))
    return other / first
