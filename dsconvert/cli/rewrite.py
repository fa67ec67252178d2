from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dsconvert.base.messages import note
from dsconvert.converter.core.fitting.styles import STRUCTURES, STYLES

from . import next_command, options, terminal, terms

if TYPE_CHECKING:
    from dsconvert.workflows.results.rewritten import RewriteResult


@click.command(epilog=terms.explained("MACs", "pair", "T", "block", "R", "fit", "output error"))
@click.argument("model", type=options.MODEL)
@options.output("_ds.keras or _ds.onnx", "of MODEL's own kind: .keras or .h5, or .onnx")
@click.option("--calibration", metavar="DATA", help="Unlabelled images to fit the pairs to.")
@options.calibration_samples(1000)
@click.option(
    "--method",
    type=click.Choice(["data", "svd", "random"]),
    help="data: fit to images (default with --calibration); svd: weights only; "
    "random: a fresh start, to compare with.",
)
@click.option(
    "--plan",
    "plan_file",
    type=click.Path(path_type=Path),
    help="Do what dsconvert plan has chosen, instead of --pairs … --exclude.",
)
@click.option(
    "--structure",
    type=click.Choice(list(STRUCTURES)),
    help="pairs: depthwise + 1×1, T of them summed; block: 1×1, depthwise and 1×1; auto, the "
    "default: whichever has the lower error at equal MACs.",
)
@click.option(
    "--pairs",
    type=options.PAIRS,
    metavar="T",
    help="The budget: each convolution may have the MACs of T pairs; by default 1.",
)
@click.option(
    "--macs",
    metavar="LIMIT",
    help="The budget of the whole network: 0.13x of the original, or 19.8M.",
)
@click.option(
    "--order",
    type=click.Choice(["depthwise-first", "pointwise-first", "auto"]),
    default="auto",
    show_default=True,
    help="Of pairs. auto: the lower error at equal cost.",
)
@click.option(
    "--block",
    type=click.Choice(list(STYLES)),
    help="The block style, instead of --structure; with --plan, that of all planned layers. "
    f"{'; '.join(f'{name}: {one.summary}' for name, one in STYLES.items())}.",
)
@click.option(
    "--channels",
    type=options.Count(1, 10**6),
    metavar="R",
    help="Of --block three-factor; by default each costs as much as --pairs T.",
)
@options.layers
@click.option(
    "--refine",
    metavar="SECONDS",
    help="Then train all layers together on the calibration images, by the original's answers: "
    "seconds, or 400steps. 60 by default for Keras models with --calibration; 0 leaves it out.",
)
@options.memory
@options.dequantize
@options.overwrite
@options.input_size
@options.preprocessing
@options.loading
@options.common
@terminal.speaks(next_command.after_rewrite)
def rewrite(
    model: Path,
    output: Path | None,
    calibration: str | None,
    plan_file: Path | None,
    dequantize: bool,
    overwrite: bool,
    trust: bool,
    custom_objects: str | None,
    input_size: tuple[str, ...],
    scale: str | None,
    mean: str | None,
    std: str | None,
    channels_first: bool,
    refine: str | None,
    **how: Any,
) -> RewriteResult:
    """Replace the convolutions of MODEL by cheaper ones.

    The new weights come from the trained ones. Each convolution becomes a sum of depthwise +
    pointwise pairs, or a block of a pointwise, a depthwise and another pointwise convolution.

    MODEL is a Keras or an .onnx file, and so is the result.

    With --calibration they are fitted to what each layer does to your images, which is worth
    far more than fitting them to the weights.

    \b
      dsconvert rewrite model.h5 --calibration images.npz
      dsconvert rewrite model.h5 --calibration images.npz --plan plan.json
      dsconvert rewrite model.onnx --calibration images.npz --macs 0.3x
    """  # noqa: D301 - click reads \b as the control character
    from dsconvert.workflows.rewrite import RewriteOptions
    from dsconvert.workflows.rewrite import rewrite as run

    result = run(
        options.opened_with(model, trust, custom_objects, dequantize, input_size=input_size),
        calibration=calibration,
        plan=plan_file,
        preprocessing=options.as_preprocessing(scale, mean, std, channels_first),
        options=RewriteOptions(**how),
        output=output or options.beside(model, "_ds.keras", "_ds.onnx"),
        overwrite=overwrite,
        refine=refine,
        progress=terminal.progress,
    )
    return _with_next_command(result.record)


def _with_next_command(result: RewriteResult) -> RewriteResult:
    """Return the result with the command that trains its untrained blocks, if it has any."""
    import msgspec

    report = result.report
    if not report.untrained:
        return result
    words = options.preprocessing_words(result.preprocessing)
    command = shlex.join(
        [
            *("dsconvert", "finetune", result.output),
            *("--teacher", result.model, "--data", "DATA", *words),
        ]
    )
    note(f"{' and '.join(report.untrained)} need fine-tuning; next: {command}")
    report = msgspec.structs.replace(report, notes=(*report.notes, f"next: {command}"))
    return msgspec.structs.replace(result, report=report)
