"""From timings to what may be said about them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .records import Comparison, Latency, Verdict

_RESAMPLES = 1000
_BLOCK = 20
"""Invocations drawn together: a disturbance of the machine lasts longer than one of them."""
_LEAST_BLOCKS = 5
"""Of few samples, as of devices that give one per process, the blocks are shorter: a single block
of all samples would always be drawn whole, and the interval be a point."""
_COPIES = 0.01
_CALL_MS = 150e-6
"""Two copies of one file, loaded into one process, were measured up to 0.6 % apart at 0.12 ms and
3 % at 5 µs, by where their memory lies, which no number of runs averages out."""

_RUNS = 0.03
"""Of seven runs of one file, each in a process of its own, the medians lay within 0.7 % at 0.19 ms
and 5 % at 0.06 and 0.10 ms: ±2.5 %, on a busy machine."""


def summarize(samples_ms: Sequence[float], batch: int) -> Latency:
    """Percentiles of one file's timed invocations.

    Args:
        samples_ms: Every invocation's time.
        batch: Samples per invocation, for the throughput.
    """
    p50, p90, p95, p99 = (float(p) for p in np.percentile(samples_ms, (50, 90, 95, 99)))
    return Latency(
        p50_ms=p50,
        p90_ms=p90,
        p95_ms=p95,
        p99_ms=p99,
        min_ms=float(np.min(samples_ms)),
        max_ms=float(np.max(samples_ms)),
        mean_ms=float(np.mean(samples_ms)),
        std_ms=float(np.std(samples_ms)),
        inferences_per_s=batch * 1e3 / p50,
        samples_ms=tuple(samples_ms),
    )


def compare(
    baseline: str, first: Latency, other: Latency, seed: int, *, paired: bool = True
) -> Comparison:
    """Return the ratio of medians with its 95 % interval by a moving-block bootstrap.

    Of one run the invocations are paired: sample i of both files was taken in the same round.
    Blocks of consecutive samples are drawn for both files together, so that what disturbed both
    does not widen the interval and what lasted several of them does not narrow it (Künsch, 1989).
    Of two runs nothing is paired, and blocks are drawn for each alone.

    Args:
        baseline: The first file's path.
        first: Its latency.
        other: The latency to compare.
        seed: Of the resampling.
        paired: Whether both are of one run; of two, more is left to chance that no number of
            samples averages out.
    """
    a, b = np.asarray(first.samples_ms), np.asarray(other.samples_ms)
    rng = np.random.default_rng(seed)
    drawn = _blocks(len(a), rng)
    also = drawn if paired and len(a) == len(b) else _blocks(len(b), rng)
    ratios = np.median(b[also], axis=1) / np.median(a[drawn], axis=1)
    low, high = (float(p) for p in np.percentile(ratios, (2.5, 97.5)))
    resolution = (_COPIES if paired else _RUNS) + _CALL_MS / first.p50_ms
    return Comparison(
        baseline=baseline,
        ratio=other.p50_ms / first.p50_ms,
        low=low,
        high=high,
        resolution=resolution,
        verdict=verdict(low, high, resolution),
    )


def verdict(low: float, high: float, resolution: float) -> Verdict:
    """Return what the interval of a time ratio allows to say: something if it stays clear of 1."""
    if high < 1 - resolution:
        return "faster"
    return "slower" if low > 1 + resolution else "no measurable difference"


def _blocks(count: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Indices of samples, (resamples, count), drawn in blocks of consecutive ones."""
    length = min(_BLOCK, max(1, count // _LEAST_BLOCKS))
    starts = rng.integers(0, count - length + 1, (_RESAMPLES, -(-count // length)))
    blocks = starts[:, :, np.newaxis] + np.arange(length)
    return blocks.reshape(_RESAMPLES, -1)[:, :count]
