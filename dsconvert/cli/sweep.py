from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import next_command, options, plan_options, terminal, terms

if TYPE_CHECKING:
    from dsconvert.workflows.results.planned import SweepResult


@click.command(epilog=terms.explained("MACs", "output error", "T", "R"))
@click.argument("model", type=options.MODEL)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Also write it to a .json file."
)
@click.option(
    "--points",
    type=options.Count(2, 1000),
    default=8,
    show_default=True,
    help="How many budgets, evenly spread.",
)
@plan_options.target
@click.option("--data", metavar="DATA", help="Labelled images: rewrite and evaluate every point.")
@plan_options.search
@options.dequantize
@options.overwrite
@options.input_size
@options.preprocessing
@options.loading
@options.common
@terminal.speaks(next_command.after_sweep)
def sweep(
    model: Path,
    output: Path | None,
    points: int,
    runtime: Any,
    threads: int,
    precision: Any,
    device: str,
    data: str | None,
    calibration: str | None,
    dequantize: bool,
    overwrite: bool,
    seed: int,
    trust: bool,
    custom_objects: str | None,
    input_size: tuple[str, ...],
    scale: str | None,
    mean: str | None,
    std: str | None,
    channels_first: bool,
    **search: Any,
) -> SweepResult:
    """Show the output error at each budget of time or MACs.

    The first plan leaves MODEL as it is, the last one saves the most.

    \b
      dsconvert sweep model.h5 --calibration images.npz
    """  # noqa: D301 - click reads \b as the control character
    from dsconvert.workflows.sweep import sweep as run

    return run(
        options.opened_with(model, trust, custom_objects, dequantize, input_size=input_size),
        calibration=calibration,
        points=points,
        data=data,
        target=plan_options.as_target(runtime, threads, precision, device),
        preprocessing=options.as_preprocessing(scale, mean, std, channels_first),
        options=plan_options.as_options(seed, **search),
        output=output,
        overwrite=overwrite,
        progress=terminal.progress,
    )
