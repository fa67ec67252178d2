from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import formatting, options, terminal

if TYPE_CHECKING:
    from rich.console import Console

    from dsconvert.deploy.profiling.compare_runs import RunComparison

_DIFFERENCES = ("device", "cpu", "threads", "cpus", "runtime", "version")


def show(console: Console, result: RunComparison) -> None:
    """One line per pair of files."""
    from rich.table import Table

    table = Table("first run", "second run", box=None, pad_edge=False)
    table.add_column("p50", justify="right")
    table.add_column("p50", justify="right")
    table.add_column("the second against the first")
    for pair in result.pairs:
        versus = pair.comparison
        said = "–"
        if versus is not None:
            said = (
                f"{1 / versus.ratio:.2f}× as fast "
                f"({1 / versus.high:.2f}–{1 / versus.low:.2f}): {versus.verdict}"
            )
        second = pair.second if not pair.same_file else f"{pair.second} (the same file)"
        medians = (formatting.ms(pair.first_p50_ms), formatting.ms(pair.second_p50_ms))
        table.add_row(pair.first, second, *medians, said)
    console.print(table)
    for pair in result.pairs:
        for note in pair.notes:
            console.print(f"{pair.first}: {note}")
    for path in result.only_first:
        console.print(f"{path}: only in the first run")
    for path in result.only_second:
        console.print(f"{path}: only in the second run")
    for difference in result.allowed:
        console.print(f"Allowed to differ: {difference}")
    for note in result.notes:
        console.print(f"Note: {note}")


@click.command()
@click.argument("first", type=options.MODEL, metavar="FIRST.json")
@click.argument("second", type=options.MODEL, metavar="SECOND.json")
@click.option(
    "--allow",
    multiple=True,
    type=click.Choice(_DIFFERENCES),
    help="Compare although this differs, where that is the question; can be repeated.",
)
@options.common
@terminal.speaks(show)
def compare(first: Path, second: Path, allow: tuple[str, ...], seed: int) -> RunComparison:
    """Compare two saved runs of profile --json, file by file; refuse what is not comparable."""
    from dsconvert.deploy.profiling.compare_runs import compare_runs, read_run

    return compare_runs(read_run(first), read_run(second), allow=allow, seed=seed)
