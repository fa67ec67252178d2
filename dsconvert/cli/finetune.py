from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dsconvert.workflows import data_for, model_files, onnx_round_trip
from dsconvert.workflows.results import FinetuneResult

from . import formatting, options, terminal

if TYPE_CHECKING:
    from rich.console import Console

    from dsconvert.models.training.settings import Epoch

LABEL_WEIGHT = 0.3
"""The share of the true class in the targets with --labels."""


def show(console: Console, result: FinetuneResult) -> None:
    """One line per epoch, then the file."""
    from rich.table import Table

    table = Table("epoch", "loss", "output error", "output", "agreement", "SQNR", "time", box=None)
    for epoch in result.history:
        first = epoch.fidelity[0]
        table.add_row(
            f"{epoch.epoch}{' (kept)' if epoch.epoch == result.best_epoch else ''}",
            formatting.short(epoch.loss),
            formatting.short(epoch.output_error),
            first.name,
            formatting.percent(first.top1_agreement),
            "–" if first.sqnr_db is None else f"{first.sqnr_db:.1f} dB",
            f"{epoch.seconds:.1f} s",
        )
    console.print(table)
    console.print(
        "output error: KL in nats, or squared relative error, to the teacher on held-out images"
    )
    for note in result.notes:
        console.print(f"note: {note}")
    console.print(f"{result.output}: {formatting.kib(result.size_bytes)}, SHA-256 {result.sha256}")


@click.command()
@click.argument("model", type=options.MODEL)
@click.option("--teacher", type=options.MODEL, required=True, help="The model it was made from.")
@click.option("--data", metavar="DATA", required=True, help="Training images; no labels needed.")
@options.output("_tuned.keras or _tuned.onnx, as MODEL is", "a .keras, .h5 or .onnx file")
@click.option("--samples", type=click.IntRange(1), help="Use only so many of them.")
@click.option("--labels", is_flag=True, help="Mix the data's labels into the targets.")
@click.option(
    "--logits", is_flag=True, help="The output is class scores before a softmax: match them so."
)
@click.option("--epochs", type=click.IntRange(1), default=3, show_default=True)
@click.option("--batch-size", type=click.IntRange(1), default=32, show_default=True)
@click.option("--learning-rate", type=float, default=1e-3, show_default=True)
@click.option(
    "--optimizer", type=click.Choice(["adam", "adamw"]), default="adam", show_default=True
)
@click.option("--temperature", type=float, default=4.0, show_default=True)
@click.option(
    "--augment",
    multiple=True,
    type=click.Choice(["flip", "crop", "none"]),
    help="May be repeated; by default flip, for images of three channels.",
)
@click.option(
    "--mixed-precision", is_flag=True, help="Compute in bfloat16: several times faster on new CPUs."
)
@click.option("--resume", is_flag=True, help="Go on where an interrupted run stopped.")
@options.overwrite
@options.preprocessing
@options.loading
@options.common
@terminal.speaks(show)
def finetune(
    model: Path,
    teacher: Path,
    data: str,
    output: Path | None,
    samples: int | None,
    labels: bool,
    logits: bool,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    optimizer: Any,
    temperature: float,
    augment: tuple[Any, ...],
    mixed_precision: bool,
    resume: bool,
    overwrite: bool,
    seed: int,
    trust: bool,
    custom_objects: str | None,
    **prepare: Any,
) -> FinetuneResult:
    """Train the rewritten MODEL to answer as --teacher does, and keep the best epoch.

    Each of the two is a Keras or an .onnx file. Of an ONNX MODEL the tuned weights go back into its
    own graph, unless -o names a Keras file.
    """
    from dsconvert.models.training.finetune import finetune as run
    from dsconvert.models.training.settings import FinetuneSettings

    prepared = options.as_preprocessing(**prepare)
    output = _place(model, output, overwrite)
    state = _state(output, resume, overwrite)
    settings = FinetuneSettings(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        optimizer=optimizer,
        label_weight=LABEL_WEIGHT if labels else 0.0,
        logits=logits,
        temperature=temperature,
        augment=tuple(kind for kind in augment if kind != "none") if augment else None,
        mixed_precision=mixed_precision,
        seed=seed,
    )
    student = onnx_round_trip.open_as_keras(model, trust, custom_objects, seed, terminal.progress)
    original = onnx_round_trip.open_as_keras(
        teacher, trust, custom_objects, seed, terminal.progress
    )
    images = data_for.data_for(
        original,
        data,
        split="train",
        samples=samples,
        seed=seed,
        labels=labels,
        preprocessing=prepared,
    )
    tuned = run(
        student.model, original.model, images, settings, state=state, progress=terminal.progress
    )
    notes = tuned.notes
    if output.suffix == ".onnx":
        written = onnx_round_trip.write_onnx(
            student,
            tuned.model,
            output,
            data=images.inputs,
            seed=seed,
            overwrite=overwrite,
            source_sha256=student.sha256,
        )
        size, digest = written.size_bytes, written.sha256
    else:
        size, digest = model_files.save_keras(tuned.model, output, overwrite, trust, custom_objects)
        if student.imported is not None:
            notes += onnx_round_trip.layout_notes(student.imported)
    state.unlink(missing_ok=True)
    return FinetuneResult(
        student=str(model),
        teacher=str(teacher),
        output=str(output),
        sha256=digest,
        size_bytes=size,
        settings=settings,
        preprocessing=images.preprocessing,
        history=_named(tuned.history, original),
        best_epoch=tuned.best_epoch,
        notes=notes,
    )


def _named(
    history: tuple[Epoch, ...], teacher: onnx_round_trip.ConvertedModel
) -> tuple[Epoch, ...]:
    """The history with the outputs called as in the teacher's file."""
    import msgspec

    if teacher.imported is None:
        return history
    replace, names = msgspec.structs.replace, teacher.imported.output_names
    return tuple(
        replace(
            epoch,
            fidelity=tuple(
                replace(output, name=name)
                for output, name in zip(epoch.fidelity, names, strict=True)
            ),
        )
        for epoch in history
    )


def _place(model: Path, output: Path | None, overwrite: bool) -> Path:
    """Where the tuned model goes, by what the student is."""
    from dsconvert.base.errors import InputError

    if model_files.kind_of(model) == "onnx":
        allowed: tuple[str, ...] = (".onnx", ".keras", ".h5")
    elif output is not None and output.suffix == ".onnx":
        raise InputError(
            f"{model} is a Keras model: its tuned weights go into a .keras or .h5 file.",
            f"Try: -o {output.with_suffix('.keras')}, then dsconvert export it to {output}.",
        )
    else:
        allowed = (".keras", ".h5")
    return options.place(model, output, f"_tuned{allowed[0]}", overwrite, allowed=allowed)


def _state(output: Path, resume: bool, overwrite: bool) -> Path:
    """The file beside the output that an interrupted run leaves."""
    from dsconvert.base.errors import InputError

    state = output.with_name(output.name + ".state")
    if state.exists() and not resume:
        if not overwrite:
            raise InputError(
                f"{state} is left from an interrupted run.",
                "Go on with --resume, or start again with --overwrite.",
            )
        state.unlink()
    if resume and not state.exists():
        raise InputError(f"there is nothing to resume: {state} does not exist.", "Drop --resume.")
    return state
