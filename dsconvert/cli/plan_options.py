"""The options that `plan` and `sweep` share, and what they become."""

from __future__ import annotations

from typing import Any

import click

from dsconvert.deploy.runtimes.registry import RUNTIMES
from dsconvert.workflows.plan_session import PlanOptions, TargetWish

from . import options

target = options.stack(
    click.option(
        "--runtime",
        type=click.Choice(list(RUNTIMES)),
        help="Measure in this runtime; by default litert for Keras, ort for .onnx.",
    ),
    options.threads,
    click.option("--precision", type=click.Choice(["float32", "int8"]), help="float32 by default."),
    click.option(
        "--device",
        default="host",
        show_default=True,
        metavar="NAME",
        help="host, a board or phone (ssh:pi@board, adb), an NPU (ethos-u55-128, …), or mcu.",
    ),
)

goals = options.stack(
    click.option("--target-latency", metavar="LIMIT", help="0.5x of the original, or 3ms."),
    click.option("--target-macs", metavar="LIMIT", help="0.4x of the original, or 6.25M."),
    click.option("--target-params", metavar="LIMIT", help="0.3x of the original, or 50k."),
    click.option("--target-size", metavar="LIMIT", help="Of the weights: 0.3x, or 200KB."),
    click.option(
        "--target-arena",
        metavar="LIMIT",
        help="Of the activations on a microcontroller (TFLM), as .tflite: 0.5x, or 64KB.",
    ),
    click.option("--target-flash", metavar="LIMIT", help="Of the .tflite file: 0.5x, or 200KB."),
    click.option(
        "--max-error",
        type=options.Finite(0, 1e9),
        metavar="ERROR",
        help="The most output error, summed over the layers.",
    ),
)

search = options.stack(
    click.option(
        "--calibration", metavar="DATA", help="Unlabelled images to measure output error on."
    ),
    options.calibration_samples(1000),
    options.max_pairs,
    options.layers,
    click.option(
        "--metric",
        default="top1",
        show_default=True,
        metavar="METRIC",
        help=f"What networks are judged by on --data: {options.METRICS}.",
    ),
    options.memory,
)


def as_target(runtime: Any, threads: int, precision: Any, device: str) -> TargetWish:
    """Return the options of `target` as one value."""
    return TargetWish(runtime=runtime, threads=threads, precision=precision, device=device)


def as_options(seed: int, **chosen: Any) -> PlanOptions:
    """Return the options of `search`, but for the images, as one value."""
    return PlanOptions(seed=seed, **chosen)
