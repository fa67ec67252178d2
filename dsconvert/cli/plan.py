from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import next_command, options, plan_options, terminal, terms

if TYPE_CHECKING:
    from dsconvert.workflows.plan import AccuracyGoal
    from dsconvert.workflows.results.planned import PlanResult


@click.command(epilog=terms.explained("MACs", "T", "R", "output error", "fit", "knee"))
@click.argument("model", type=options.MODEL)
@options.output("_plan.json", "a .json file")
@plan_options.target
@plan_options.goals
@click.option(
    "--max-drop",
    metavar="DROP",
    help="Search the budget by accuracy: 1% of --metric at most, or 0.5 in its unit.",
)
@click.option("--data", metavar="DATA", help="Labelled images for --max-drop.")
@click.option("--labels", is_flag=True, help="Says that --data has labels; --max-drop needs them.")
@click.option(
    "--refine",
    metavar="SECONDS",
    help="Refine each network that --max-drop judges, as rewrite does: 60 s by default for Keras "
    "models; 400steps; 0 judges them as fitted.",
)
@plan_options.search
@options.dequantize
@options.overwrite
@options.input_size
@options.preprocessing
@options.loading
@options.common
@terminal.speaks(next_command.after_plan)
def plan(
    model: Path,
    output: Path | None,
    runtime: Any,
    threads: int,
    precision: Any,
    device: str,
    target_latency: str | None,
    target_macs: str | None,
    target_params: str | None,
    target_size: str | None,
    target_arena: str | None,
    target_flash: str | None,
    max_error: float | None,
    max_drop: str | None,
    data: str | None,
    labels: bool,
    refine: str | None,
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
) -> PlanResult:
    """Choose what to rewrite by measured time, and write it down.

    Each convolution of MODEL and what may replace it are timed on the target, and tried out on
    the calibration images; the least output error within the targets is chosen. What does not get
    faster stays. Without a target: what is really faster, at the knee of the curve.

    \b
      dsconvert plan model.h5 --calibration images.npz --target-latency 0.5x
      dsconvert plan model.onnx --calibration images.npz --target-macs 0.3x
    """  # noqa: D301 - click reads \b as the control character
    from dsconvert.converter.core.planning.goals import Goals
    from dsconvert.workflows.plan import plan as run

    return run(
        options.opened_with(model, trust, custom_objects, dequantize, input_size=input_size),
        calibration=calibration,
        goals=Goals(
            latency=target_latency,
            macs=target_macs,
            params=target_params,
            size=target_size,
            arena=target_arena,
            flash=target_flash,
            max_error=max_error,
        ),
        target=plan_options.as_target(runtime, threads, precision, device),
        accuracy=_accuracy(max_drop, data, labels, refine, search["metric"]),
        preprocessing=options.as_preprocessing(scale, mean, std, channels_first),
        options=plan_options.as_options(seed, **search),
        output=output or options.beside(model, "_plan.json"),
        overwrite=overwrite,
        progress=terminal.progress,
    )


def _accuracy(
    max_drop: str | None, data: str | None, labels: bool, refine: str | None, metric: str
) -> AccuracyGoal | None:
    """Return the four options as one value, if all are there."""
    from dsconvert.base.errors import InputError
    from dsconvert.models.evaluation.metrics.registry import METRICS
    from dsconvert.workflows.plan import AccuracyGoal

    if max_drop is None and (data is not None or labels or refine is not None):
        raise InputError(
            "--data, --labels and --refine are for --max-drop.",
            "Add --max-drop 1%.",
            code="unused-data",
        )
    if max_drop is None:
        return None
    known = METRICS.get(metric.split("/")[0])
    needs_labels = known is not None and "labels" in known.needs
    if data is None or (needs_labels and not labels):
        raise InputError(
            "--max-drop needs images with labels.",
            "Add --data DATA.npz --labels.",
            code="needs-labels",
        )
    return AccuracyGoal(max_drop, data, refine)
