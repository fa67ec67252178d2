"""The time of a block's forms on this machine, measured together."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from dsconvert.base.errors import InputError, MissingExtra
from dsconvert.converter.core.planning.cost_model import Block, BlockCosts
from dsconvert.converter.core.types import Choice, Figure

from ..profiling.latency import compare, summarize
from ..profiling.records import Latency
from ..runner.timing import time_in_rounds
from ..runtimes.registry import open_runtime
from ..runtimes.runtime import Prepared, Runtime, first_line
from ..runtimes.samples import random_inputs
from .block_variants import describe, form_of
from .onnx_block import onnx_block
from .ort_block_core import inside
from .target import Target
from .tflite_block import tflite_block

logger = logging.getLogger(__name__)

SECONDS = 0.4
"""Time that the timing of one block takes, if the fewest runs take no longer."""
RUNS, MAX_RUNS = 30, 400
_WARM_UPS = (3, 10)
"""Untimed invocations of each form: at least, and as many as fit into `_WARM_UP_SECONDS`."""
_WARM_UP_SECONDS = 0.02

Clock = Callable[[], int]


def measure(
    block: Block,
    choices: Sequence[Choice],
    target: Target,
    *,
    seconds: float = SECONDS,
    clock: Clock = time.perf_counter_ns,
) -> BlockCosts:
    """Measure a block and what may replace it, in turns.

    Args:
        block: The convolution.
        choices: What may replace it.
        target: On the host.
        seconds: Time for all forms together, unless 30 invocations of each take longer.
        clock: Nanoseconds since some moment.

    Returns:
        Medians in milliseconds. A choice that the runtime cannot run gets None and a line in the
        log.

    Raises:
        InputError: If the runtime cannot run the convolution itself.
        MissingExtra: If the runtime, or what writes its files, is not installed.
    """
    with tempfile.TemporaryDirectory() as folder:
        forms: list[Choice | None] = [None, *choices]
        opened: list[tuple[Runtime, Prepared] | None] = []  # the runtimes own what they run
        for number, choice in enumerate(forms):
            try:
                opened.append(_open(block, choice, target, Path(folder, str(number)), clock))
            except MissingExtra:
                raise
            except Exception as error:  # the runtimes raise anything
                why = first_line(error).replace(f"{folder}{os.sep}", "")
                cannot(block, choice, why, error)
                opened.append(None)
        ready = [pair[1] for pair in opened if pair is not None]
        times = time_in_rounds(
            [one.run for one in ready],
            RUNS,
            seconds / len(ready),
            0,
            max_runs=MAX_RUNS,
            clock=clock,
        )
    samples = iter(times)
    return costs_of([None if pair is None else next(samples) for pair in opened])


def costs_of(samples: Sequence[Sequence[float] | None]) -> BlockCosts:
    """The costs of a block from the milliseconds of its forms, which took turns.

    Args:
        samples: Those of the convolution itself, then of each choice; None for one that failed.
    """
    first, *others = samples
    assert first is not None, "refused before"
    original = summarize(first, 1)
    return BlockCosts(
        original=Figure(value=original.p50_ms),
        choices=tuple(None if one is None else _figure(original, one) for one in others),
    )


def _figure(original: Latency, samples: Sequence[float]) -> Figure:
    latency = summarize(samples, 1)
    versus = compare("the convolution", original, latency, seed=0)
    return Figure(
        value=latency.p50_ms,
        ratio_low=versus.low,
        ratio_high=versus.high,
        faster=versus.verdict == "faster",
    )


def write(block: Block, choice: Choice | None, target: Target) -> tuple[bytes, str]:
    """One form of a block as the file that is measured, and its suffix."""
    form = form_of(block, choice)
    if target.runtime == "litert":
        return tflite_block(form, target.precision), ".tflite"
    return inside(onnx_block(form, target.precision)), ".onnx"


def _open(
    block: Block, choice: Choice | None, target: Target, path: Path, clock: Clock
) -> tuple[Runtime, Prepared]:
    """Write one form, load it and warm it up."""
    file, suffix = write(block, choice, target)
    path = path.with_suffix(suffix)
    path.write_bytes(file)
    runtime = open_runtime(path, threads=target.threads)
    prepared = runtime.prepare(random_inputs(runtime.inputs, 1, seed=0))
    least, most = _WARM_UPS
    end = clock() + int(_WARM_UP_SECONDS * 1e9)
    for run in range(most):
        if run >= least and clock() >= end:
            break
        prepared.run()
    if not all(np.isfinite(output).all() for output in prepared.read()):
        raise InputError("its output holds NaN or infinity.")
    return runtime, prepared


def cannot(block: Block, choice: Choice | None, why: str, error: Exception | None = None) -> None:
    """Log that a choice has no cost.

    Raises:
        InputError: If it is the convolution itself that has none: there is nothing to compare with.
    """
    if choice is None:
        raise InputError(f"the {describe(block)} has no cost on the target: {why}") from error
    logger.warning(
        "%s as %d %s pairs (%s) has no cost on the target: %s",
        describe(block),
        choice.pairs,
        choice.order,
        choice.lowering,
        why,
    )
