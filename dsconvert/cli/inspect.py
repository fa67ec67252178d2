from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dsconvert.workflows import data_for, model_files

from . import formatting, options, terminal

if TYPE_CHECKING:
    from rich.console import Console

    from dsconvert.converter.inspect import Inspection


def show(console: Console, result: Inspection) -> None:
    """One line per convolution: what it is, what pairs would make of it, or why not."""
    from rich.table import Table

    by_data = result.calibration_images > 0
    which = f"on {result.calibration_images} images" if by_data else "of the weights"
    macs = (
        formatting.short(result.macs, "MACs") if result.macs else "MACs unknown (free image size)"
    )
    kernels = "" if result.kernels is None else f", {result.kernels:,} of them in kernels"
    console.print(
        f"{result.model}: {macs}, {result.params:,} parameters{kernels}. "
        f"Errors at T pairs are {which}, in %."
    )
    table = Table("layer", "kernel", "C→N", "MACs", "params", box=None, pad_edge=False)
    for pairs in range(1, 5):
        table.add_column(f"T={pairs}", justify="right")
    table.add_column("saves at T=1")
    for row in result.convolutions:
        cells = [row.name]
        if row.spec is None:
            cells += ["", "", "", ""]
        else:
            kh, kw = row.spec.kernel_size
            stride = "" if row.spec.strides == (1, 1) else f"/{row.spec.strides[0]}"
            cells += [
                f"{kh}×{kw}{stride}",
                f"{row.spec.in_channels}→{row.spec.out_channels}",
                formatting.short(row.macs),
                f"{row.params:,}",
            ]
        errors = [o.data_error if by_data else o.weight_error for o in row.options]
        cells += [f"{100 * (error or 0):.1f}" for error in errors] or [""] * 4
        if row.options:
            first = row.options[0]
            saves = f"{formatting.ratio(row.params, first.params)} params"
            if row.macs:
                saves += f", {formatting.ratio(row.macs, first.macs)} MACs"
        else:
            saves = ""
        if row.reason is not None:
            saves += f"{'; ' if saves else ''}left alone: {row.reason.text}"
        table.add_row(*cells, saves)
    console.print(table)


@click.command()
@click.argument("model", type=options.MODEL)
@click.option("--calibration", metavar="DATA", help="Images: also show errors of fitted pairs.")
@click.option("--samples", type=click.IntRange(1), default=500, show_default=True)
@click.option("--memory", type=options.Memory(), default="2GiB", show_default=True)
@options.preprocessing
@options.loading
@options.common
@terminal.speaks(show)
def inspect(
    model: Path,
    calibration: str | None,
    samples: int,
    memory: int,
    seed: int,
    trust: bool,
    custom_objects: str | None,
    **prepare: Any,
) -> Inspection:
    """Show each convolution of MODEL, what pairs would save and lose, or why it is left alone."""
    from dsconvert.converter.inspect import inspect as run

    prepared = options.as_preprocessing(**prepare)
    opened = model_files.open_model(model, trust, custom_objects)
    data = data_for.calibration_for(opened, calibration, samples, seed, prepared)
    return run(
        opened.model,
        folder=opened.folder,
        calibration=None if data is None else data.inputs,
        memory=memory,
        seed=seed,
        progress=terminal.progress,
    )
