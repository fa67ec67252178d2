from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dsconvert.base.messages import note
from dsconvert.workflows import model_files

from . import formatting, options, terminal

if TYPE_CHECKING:
    from rich.console import Console

    from dsconvert.base.fidelity import Accuracy
    from dsconvert.base.predictor import Predictor
    from dsconvert.models.evaluation.evaluate import Evaluation


def show(console: Console, result: list[Evaluation]) -> None:
    """One line per file and output."""
    from rich.table import Table

    table = Table("file", "samples", "top-1", "top-5", box=None, pad_edge=False)
    for title in ("MSE", "output", "agreement", "KL", "SQNR"):
        table.add_column(title)
    for one in result:
        cells = [one.name, f"{one.samples:,}", _accuracy(one.top1), _accuracy(one.top5)]
        cells.append(formatting.short(one.mse))
        if not one.fidelity:
            table.add_row(*cells)
        for output in one.fidelity:
            table.add_row(
                *cells,
                output.name,
                formatting.percent(output.top1_agreement),
                "–" if output.kl_nats is None else f"{output.kl_nats:.3g} nats",
                "–" if output.sqnr_db is None else f"{output.sqnr_db:.1f} dB",
            )
            cells = [""] * 5
    console.print(table)
    if any(one.top1 for one in result):
        console.print("± is the half width of the 95 % Wilson interval")
    for one in result:
        for warning in one.warnings:
            console.print(f"{one.name}: {warning}")


def _accuracy(value: Accuracy | None) -> str:
    if value is None:
        return "–"
    return f"{100 * value.value:.2f} ± {50 * (value.high - value.low):.2f} %"


@click.command()
@click.argument("files", nargs=-1, required=True, type=options.MODEL, metavar="FILE...")
@click.option("--data", metavar="DATA", required=True, help="Test images, with labels or without.")
@click.option("--reference", type=options.MODEL, help="Compare the outputs with this model's.")
@click.option("--samples", type=click.IntRange(1), help="Use only so many of them.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
@options.preprocessing
@options.loading
@options.common
@terminal.speaks(show)
def evaluate(
    files: tuple[Path, ...],
    data: str,
    reference: Path | None,
    samples: int | None,
    threads: int,
    seed: int,
    trust: bool,
    custom_objects: str | None,
    **prepare: Any,
) -> list[Evaluation]:
    """Measure accuracy, and fidelity to a reference, of Keras, TFLite and ONNX files alike."""
    from dsconvert.models.data.checks import check_same_inputs, layout_notes
    from dsconvert.models.data.datasets import load_data
    from dsconvert.models.evaluation.evaluate import evaluate as run
    from dsconvert.models.evaluation.plausibility import suspicions

    prepared = options.as_preprocessing(**prepare)
    opened = {
        path: _open(path, threads, trust, custom_objects)
        for path in dict.fromkeys((*([reference] if reference else []), *files))
    }
    check_same_inputs({str(path): model.input_shapes for path, model in opened.items()})
    # The one that leaves the fewest sizes open says how large images are to be.
    first = min(opened.values(), key=lambda model: str(model.input_shapes).count("None"))
    images = load_data(
        data,
        split="test",
        samples=samples,
        seed=seed,
        preprocessing=prepared,
        input_names=first.input_names,
        input_shapes=first.input_shapes,
    )
    given = (images.laid_out(model.input_shapes) for model in opened.values())
    for text in dict.fromkeys(text for one in given for text in layout_notes(one)):
        note(text)
    for suspicion in suspicions(images):
        note(suspicion)
    return [
        run(
            opened[path],
            images,
            reference=opened[reference] if reference else None,
            name=_short_name(path, files),
            progress=terminal.progress,
        )
        for path in files
    ]


def _open(path: Path, threads: int, trust: bool, custom_objects: str | None) -> Predictor:
    if model_files.kind_of(path) != "keras":
        from dsconvert.deploy.runtimes.registry import open_runtime

        return open_runtime(path, threads=threads)
    from dsconvert.models.evaluation.keras_predictor import KerasPredictor

    return KerasPredictor(model_files.load_keras(path, trust, custom_objects).model)


def _short_name(path: Path, files: tuple[Path, ...]) -> str:
    """The file's name, or its path where two files have the same name."""
    return path.name if [other.name for other in files].count(path.name) == 1 else str(path)
