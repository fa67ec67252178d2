from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import next_command, options, terminal, terms

if TYPE_CHECKING:
    from dsconvert.workflows.results.measured import ComparedRuns

_DIFFERENCES = ("device", "cpu", "threads", "cpus", "runtime", "version")


@click.command(epilog=terms.explained("p50, p90, p99", "against"))
@click.argument("first", type=options.MODEL, metavar="FIRST.json")
@click.argument("second", type=options.MODEL, metavar="SECOND.json")
@click.option(
    "--allow",
    multiple=True,
    type=click.Choice(_DIFFERENCES),
    help="Compare although this differs, where that is the question; can be repeated.",
)
@options.common
@terminal.speaks(next_command.after_compare)
def compare(first: Path, second: Path, allow: tuple[str, ...], seed: int) -> ComparedRuns:
    """Compare two saved runs of profile --json, file by file.

    Runs that are not comparable (another device, runtime, …) are refused.
    """
    from dsconvert.workflows.compare import compare as run

    return run(first, second, allow=allow, seed=seed)
