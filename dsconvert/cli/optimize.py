from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import options, terminal, terms

if TYPE_CHECKING:
    from dsconvert.workflows.results.optimized import OptimizeResult


class Formats(click.ParamType[tuple[str, ...]]):
    """Formats with commas between them; checked by `OptimizeOptions`, all at once."""

    name = "format,…"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """Split at commas."""
        if isinstance(value, list | tuple):
            return tuple(value)
        return tuple(part.strip() for part in value.split(",") if part.strip())


def next_command(result: OptimizeResult) -> Iterator[str]:
    """Yield how to run the recommended file, or how to do what was told."""
    if result.dry:
        yield "next: the same command without --dry-run"
    elif not result.recommended:
        yield f"next: dsconvert report {shlex.quote(result.folder)} shows what each file loses"
    else:
        yield f"next: {shlex.join(['python', f'{result.folder}/run.py', 'IMAGE.png'])}"


@click.command(epilog=terms.explained("MACs", "lost", "p50, p90, p99", "fit"))
@click.argument("model", type=options.MODEL)
@click.option("--data", metavar="DATA", required=True, help="Images, with labels or without.")
@click.option("--labels", is_flag=True, help="Require the data's labels, and train on them too.")
@click.option("--test-data", metavar="DATA", help="Other images to measure on.")
@click.option(
    "--formats",
    type=Formats(),
    default=(),
    help="tflite- or onnx-float32, -float16, -dynamic, -int8; the plan is made for the first one. "
    "By default float32 and int8 of the model's own kind.",
)
@click.option(
    "--device",
    default="host",
    show_default=True,
    metavar="NAME",
    help="host, a board or phone (ssh:pi@board, adb), or an NPU: ethos-u55-128, …",
)
@options.threads
@click.option(
    "--target-latency", metavar="LIMIT", help="0.5x of the original in the first format, or 3ms."
)
@click.option(
    "--metric",
    default="",
    metavar="METRIC",
    help=f"What losses are of: {options.METRICS}. By default top-1; without labels the share of "
    "changed classes, or of noise.",
)
@click.option(
    "--max-drop",
    default="1%",
    show_default=True,
    metavar="SHARE",
    help="The most that the file to use may lose of the metric.",
)
@click.option(
    "--samples",
    type=options.Count(10, 10**9),
    default=5000,
    show_default=True,
    help="Draw at most so many images to fit and train on.",
)
@click.option(
    "--test-samples",
    type=options.SAMPLES,
    default=2000,
    show_default=True,
    help="Draw at most so many images to measure on.",
)
@click.option(
    "--refine", metavar="SECONDS", help="As for rewrite: 60, 400steps, or 0 to leave it out."
)
@click.option(
    "--epochs",
    type=options.Count(0, 10**6),
    default=3,
    show_default=True,
    help="Of the training; 0 leaves it out.",
)
@options.max_pairs
@options.layers
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("run"),
    show_default=True,
    help="The folder of the run. Started again there, it goes on where it was stopped.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be done, and only inspect.")
@options.dequantize
@options.input_size
@options.preprocessing
@options.loading
@options.common
@terminal.speaks(next_command)
def optimize(
    model: Path,
    data: str,
    output: Path,
    dry_run: bool,
    trust: bool,
    custom_objects: str | None,
    dequantize: bool,
    input_size: tuple[str, ...],
    scale: str | None,
    mean: str | None,
    std: str | None,
    channels_first: bool,
    **asked: Any,
) -> OptimizeResult:
    """Do all steps for MODEL in one folder, and recommend one file.

    MODEL is planned, rewritten, fine-tuned, exported, verified and measured.

    \b
      dsconvert optimize model.h5 --data train.npz --target-latency 0.5x -o run
      dsconvert optimize model.onnx --data images/ --formats onnx-int8,tflite-int8

    What does not pay is left out. The folder holds every file, the plan, the recipe, a report and
    a program that runs the recommended file. The exit code is 1 if the target is missed.
    """  # noqa: D301 - click reads \b as the control character
    from dsconvert.workflows.optimize.optimize import optimize as run
    from dsconvert.workflows.optimize.options import OptimizeOptions

    return run(
        options.opened_with(model, trust, custom_objects, dequantize, input_size=input_size),
        data,
        output,
        OptimizeOptions(**asked),
        preprocessing=options.as_preprocessing(scale, mean, std, channels_first),
        dry_run=dry_run,
        progress=terminal.progress,
    )
