from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dsconvert.base.messages import note
from dsconvert.converter.core.fitting.styles import DEFAULT, STYLES
from dsconvert.workflows import data_for, model_files
from dsconvert.workflows.results import RewriteResult

from . import formatting, options, terminal

if TYPE_CHECKING:
    from rich.console import Console

    from dsconvert.converter.core.report import RewriteReport
    from dsconvert.converter.core.types import Plan
    from dsconvert.models.data.preprocess import Preprocessing


def show(console: Console, result: RewriteResult) -> None:
    """One line per convolution, then the totals and the file."""
    from rich.table import Table

    report = result.report
    table = Table("layer", "became", "MACs", "params", box=None, pad_edge=False)
    table.add_column("weight error", justify="right")
    table.add_column("data error", justify="right")
    for row in report.layers:
        if row.pairs is None:
            reason = row.reason.text if row.reason else ""
            table.add_row(row.name, f"left alone: {reason}")
            continue
        notes = f" ({'; '.join(row.notes)})" if row.notes else ""
        table.add_row(
            row.name,
            f"{row.text}{notes}",
            f"{formatting.short(row.macs_before)} → {formatting.short(row.macs_after)}",
            f"{row.params_before:,} → {row.params_after:,}",
            formatting.percent(row.weight_error),
            formatting.percent(row.data_error),
        )
    console.print(table)
    for trial in report.trials:
        chosen = " (taken)" if trial is report.trials[0] else ""
        console.print(
            f"fitted with {trial.strategy}: output error {trial.output_error:.4g}{chosen}"
        )
    if report.trials:
        console.print(
            f"  output error: KL in nats, or squared relative error, on "
            f"{report.held_out_images} of the "
            f"calibration images that no fit saw; the other {report.calibration_images} were used"
        )
    if report.refitted:
        console.print(f"also refitted: {', '.join(report.refitted)}")
    for remark in report.notes:
        console.print(f"note: {remark}", soft_wrap=True)
    macs = "MACs unknown (free image size)"
    if report.macs_before:
        macs = (
            f"MACs {formatting.short(report.macs_before)} → {formatting.short(report.macs_after)} "
            f"({formatting.change(report.macs_before, report.macs_after)})"
        )
    console.print(
        f"{len(report.rewritten)} of {len(report.layers)} convolutions rewritten by "
        f"{report.method}: {macs}, parameters "
        f"{report.params_before:,} → {report.params_after:,} "
        f"({formatting.change(report.params_before, report.params_after)})"
    )
    console.print(f"{result.output}: {formatting.kib(result.size_bytes)}, SHA-256 {result.sha256}")


@click.command()
@click.argument("model", type=options.MODEL)
@options.output("_ds.keras or _ds.onnx", "of MODEL's own kind: .keras or .h5, or .onnx")
@click.option("--calibration", metavar="DATA", help="Unlabelled images to fit the pairs to.")
@click.option("--samples", type=click.IntRange(1), default=1000, show_default=True)
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
@click.option("--pairs", type=click.IntRange(1), default=1, show_default=True, metavar="T")
@click.option(
    "--order",
    type=click.Choice(["depthwise-first", "pointwise-first", "auto"]),
    default="auto",
    show_default=True,
    help="auto: the lower error at equal cost.",
)
@click.option(
    "--block",
    type=click.Choice(list(STYLES)),
    help=f"The block style. {'; '.join(f'{name}: {one.summary}' for name, one in STYLES.items())}. "
    f"By default {DEFAULT}, unless --plan says otherwise.",
)
@click.option("--include", multiple=True, metavar="GLOB", help="Rewrite only these layers.")
@click.option("--exclude", multiple=True, metavar="GLOB", help="Leave these layers alone.")
@click.option("--memory", type=options.Memory(), default="2GiB", show_default=True)
@options.overwrite
@options.preprocessing
@options.loading
@options.common
@terminal.speaks(show)
def rewrite(
    model: Path,
    output: Path | None,
    calibration: str | None,
    samples: int,
    method: Any,
    plan_file: Path | None,
    pairs: int,
    order: Any,
    block: Any,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    memory: int,
    overwrite: bool,
    seed: int,
    trust: bool,
    custom_objects: str | None,
    **prepare: Any,
) -> RewriteResult:
    """Replace the convolutions of MODEL by depthwise + pointwise pairs, using its weights.

    MODEL is a Keras or an .onnx file, and so is the result.

    With --calibration the pairs are fitted to what each layer does to your images, which is worth
    far more than fitting them to the weights.
    """
    from dsconvert.base.errors import InputError
    from dsconvert.converter.rewrite import rewrite as run

    prepared = options.as_preprocessing(**prepare)
    kind = model_files.kind_of(model)
    allowed = (".onnx",) if kind == "onnx" else (".keras", ".h5")
    output = options.place(model, output, f"_ds{allowed[0]}", overwrite, allowed=allowed)
    if plan_file is not None and (include or exclude or pairs != 1 or order != "auto"):
        raise InputError(
            "--plan says what becomes of every layer, so --pairs, --order, --include and "
            "--exclude would be ignored.",
            f"Edit {plan_file}, or make another plan.",
        )
    if method in ("svd", "random") and calibration:
        raise InputError(
            f"--method {method} looks at no images, so --calibration would be ignored.",
            "Leave one of the two out.",
        )
    plan = None if plan_file is None else _read_plan(plan_file)
    opened = model_files.open_model(model, trust, custom_objects)
    if plan is not None and plan.source_sha256 not in ("", opened.sha256):
        note(f"{plan_file} was made for another file than {model}; its names are used")
    folder, repairs = opened.folder, opened.repairs
    data = data_for.calibration_for(opened, calibration, samples, seed, prepared)
    result = run(
        opened.model,
        folder=folder,
        calibration=None if data is None else data.inputs,
        method=method,
        plan=plan,
        pairs=pairs,
        order=order,
        block=block,
        include=include,
        exclude=exclude,
        memory=memory,
        seed=seed,
        source_sha256=opened.sha256,
        progress=terminal.progress,
    )
    del opened  # a large ONNX model should not be in memory twice while it is written
    if kind == "onnx":
        size, digest = model_files.save_onnx(result.model, folder, output, overwrite)
    else:
        size, digest = model_files.save_keras(
            result.model, output, overwrite, trust, custom_objects
        )
    report = result.report
    prepared = prepared if data is None else data.preprocessing
    if report.untrained:
        report, told = _with_next_command(report, model, output, prepared)
        note(told)
    return RewriteResult(
        model=str(model),
        output=str(output),
        sha256=digest,
        size_bytes=size,
        repairs=repairs,
        preprocessing=prepared,
        report=report,
    )


def _with_next_command(
    report: RewriteReport, model: Path, output: Path, prepared: Preprocessing
) -> tuple[RewriteReport, str]:
    """The report of untrained blocks with the command that trains them, and that command's note."""
    import msgspec

    words = options.preprocessing_words(prepared)
    command = shlex.join(
        ["dsconvert", "finetune", str(output), "--teacher", str(model), "--data", "DATA", *words]
    )
    told = f"{' and '.join(report.untrained)} need fine-tuning; next: {command}"
    return msgspec.structs.replace(report, notes=(*report.notes, f"next: {command}")), told


def _read_plan(path: Path) -> Plan:
    """Read a plan, edited or not.

    Raises:
        InputError: If it is none; with the place.
    """
    import msgspec

    from dsconvert.base.errors import InputError
    from dsconvert.converter.core.types import Plan

    try:
        return msgspec.json.decode(path.read_bytes(), type=Plan)
    except OSError as error:
        raise InputError(
            f"{path}: {error.strerror}.", f"Try: dsconvert plan MODEL -o {path}"
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} is no plan: {error}.", "Make it with dsconvert plan, and edit it by hand."
        ) from error
