"""Timing several invocations so that their times can be compared."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Sequence

MAX_RUNS = 5000
"""Enough for any median; keeps the raw samples of a microsecond model from filling the disk."""
_TURN = 5
"""Timed invocations in a row per file and round."""


def time_in_rounds(
    calls: Sequence[Callable[[], object]],
    runs: int,
    min_seconds: float,
    seed: int,
    *,
    max_runs: int = MAX_RUNS,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> list[list[float]]:
    """Time all files' invocations in rounds, in random order.

    Each turn of a file is one untimed invocation and five timed ones: without the untimed one a
    small network that follows a large one was measured at 0.19 instead of 0.13 ms, since its
    weights had left the caches.

    Args:
        calls: One per file: each invokes it once, warmed up.
        runs: Timed invocations of each, at least, rounded up to whole turns.
        min_seconds: Time per file that the rounds last at least, unless ``max_runs`` ends them.
        seed: Of the order.
        max_runs: Timed invocations of each after which no new round is begun for time's sake.
        clock: Nanoseconds since some moment.

    Returns:
        Milliseconds per file and invocation. Sample i of every file is from the same round.
    """
    times: list[list[float]] = [[] for _ in calls]
    order, turn = list(range(len(calls))), range(min(_TURN, runs))
    shuffle = random.Random(seed).shuffle
    end = clock() + int(min_seconds * 1e9 * len(calls))
    collecting, done = gc.isenabled(), 0
    gc.collect()
    gc.disable()
    try:
        while calls and (done < runs or (clock() < end and done < max_runs)):
            shuffle(order)
            for i in order:
                call = calls[i]
                call()
                for _ in turn:
                    start = clock()
                    call()
                    stop = clock()
                    times[i].append((stop - start) / 1e6)
            done += len(turn)
    finally:
        if collecting:
            gc.enable()
    return times
