"""Tables made to fit a width: columns go, long words become footnotes, names shrink last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from .tables import Block, Table

GAP = 2
"""Spaces between two columns."""
_SHORT = 12
"""Characters that a name keeps at least, and from which on words may become a footnote."""


def fitted(table: Table, width: int) -> list[Block]:
    """Make a table fit.

    Columns that the table calls its least go first, then long words in cells become footnotes,
    and the names in the first column lose their beginning last of all.

    Args:
        table: It stays as it is.
        width: Characters.

    Returns:
        The table, its footnotes and a line that names what is not shown.
    """
    dropped: list[str] = []
    least = list(table.least)
    while least and natural_width(table) > width:
        title = least.pop(0)
        if any(title == found for found, _ in table.columns):
            table = _without(table, title)
            dropped.append(title)
    table, notes = _footnotes(table, width)
    over = natural_width(table) - width
    if over > 0:
        table = _names_shrunk(table, over)
    said = [f"not shown at this width: {', '.join(dropped)} (--json has all)"] if dropped else []
    return [table, *notes, *said]


def natural_width(table: Table) -> int:
    """Tell how many characters the longest line takes."""
    widths = _widths(table)
    return sum(widths) + GAP * (len(widths) - 1)


def _widths(table: Table) -> list[int]:
    lines = [[title for title, _ in table.columns], *table.full_rows()]
    return [max(map(len, cells)) for cells in zip(*lines, strict=True)]


def _without(table: Table, title: str) -> Table:
    at = [found for found, _ in table.columns].index(title)
    rows: list[Sequence[str]] = [[*row[:at], *row[at + 1 :]] for row in table.full_rows()]
    parts = (
        [t for t in titles if t != title] for titles in (table.titles, table.numbers, table.last)
    )
    titles, numbers, last = parts
    return replace(table, titles=titles, numbers=numbers, last=last, rows=rows)


def _footnotes(table: Table, width: int) -> tuple[Table, list[str]]:
    """Move long words of all columns but the first below the table, the widest column first."""
    marks: dict[str, str] = {}
    words = [at for at, (_, right) in enumerate(table.columns) if not right and at]
    while words and natural_width(table) > width:
        widths = _widths(table)
        at = max(words, key=lambda column: widths[column])
        words.remove(at)
        rows = [list(row) for row in table.full_rows()]
        for row in rows:
            if len(row[at]) > _SHORT:
                row[at] = marks.setdefault(row[at], f"[{len(marks) + 1}]")
        table = replace(table, rows=list[Sequence[str]](rows))
    return table, [f"{mark} {text}" for text, mark in marks.items()]


def _names_shrunk(table: Table, over: int) -> Table:
    """Cut the beginning of long names: the end of a path tells files apart."""
    longest = max(_widths(table)[0] - over, _SHORT)
    rows = [list(row) for row in table.full_rows()]
    for row in rows:
        if len(row[0]) > longest:
            row[0] = f"…{row[0][1 - longest :]}"
    return replace(table, rows=list[Sequence[str]](rows))
