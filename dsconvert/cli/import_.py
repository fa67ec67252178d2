from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import next_command, options, terminal, terms

if TYPE_CHECKING:
    from dsconvert.workflows.results.imported import ImportedModel


@click.command("import", epilog=terms.explained("SQNR", "agreement", "KL"))
@click.argument("model", type=options.MODEL)
@options.output(".keras", "a .keras or .h5 file")
@click.option("--data", metavar="DATA", help="Real inputs to compare on; random ones otherwise.")
@options.dequantize
@options.overwrite
@options.preprocessing
@options.common
@terminal.speaks(next_command.after_import)
def import_(
    model: Path,
    output: Path | None,
    data: str | None,
    dequantize: bool,
    overwrite: bool,
    seed: int,
    **prepare: Any,
) -> ImportedModel:
    """Convert the .onnx MODEL to a Keras file of stock layers.

    Images are (n, H, W, C) then; the outputs are the same.

    The file loads in plain Keras. `export --like MODEL` takes its weights back to ONNX.
    """
    from dsconvert.workflows.import_onnx import import_onnx

    return import_onnx(
        options.opened_with(model, False, None, dequantize),
        output or options.beside(model, ".keras"),
        data=data,
        preprocessing=options.as_preprocessing(**prepare),
        overwrite=overwrite,
        seed=seed,
        progress=terminal.progress,
    )
