from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import next_command, options, terminal

if TYPE_CHECKING:
    from dsconvert.workflows.report import WrittenReport


@click.command()
@click.argument("run", type=options.MODEL)
@click.argument("other", type=options.MODEL, required=False)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="The .html file; by default report.html in the folder of the first run.",
)
@options.overwrite
@options.common
@terminal.speaks(next_command.after_report)
def report(
    run: Path, other: Path | None, output: Path | None, overwrite: bool, seed: int
) -> WrittenReport:
    """Make the page of a RUN of optimize anew, or of two runs."""
    from dsconvert.workflows.report import report as make

    return make(run, other, output=output, overwrite=overwrite)
