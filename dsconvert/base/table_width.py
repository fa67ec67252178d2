"""Tables made to fit a width: sentences become footnotes, columns go, names shrink last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from .tables import Block, Table

GAP = 2
"""Spaces between two columns."""
_SHORT = 12
"""Characters that a name keeps at least, and from which on words may become a footnote."""
_SENTENCE = 35
"""Characters from which on words become a footnote before any column goes."""


def fitted(table: Table, width: int) -> list[Block]:
    """Make a table fit.

    Sentences in cells become footnotes first. Then the columns go that the table calls its least,
    then other long words become footnotes. The names in the first column lose their beginning last
    of all.

    Args:
        table: It stays as it is.
        width: Characters.

    Returns:
        The table, its footnotes and a line that names what is not shown.
    """
    below = _moved(table, width, set(), _SENTENCE)
    dropped: list[str] = []
    least = list(table.least)
    while least and natural_width(_footnoted(table, below)[0]) > width:
        title = least.pop(0)
        if any(title == found for found, _ in table.columns):
            table = table.without(title)
            dropped.append(title)
    table, notes = _footnoted(table, _moved(table, width, below, _SHORT))
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


def _words(table: Table) -> list[str]:
    """Return the cells of words, row by row, but for the names in the first column."""
    columns = [at for at, (_, right) in enumerate(table.columns) if not right and at]
    return [row[at] for row in table.full_rows() for at in columns]


def _moved(table: Table, width: int, below: set[str], longer: int) -> set[str]:
    """Return what stands below the table, with as many more of its longest words as it takes."""
    below = set(below)
    long = sorted({c for c in _words(table) if len(c) > longer} - below, key=lambda c: (len(c), c))
    while long and natural_width(_footnoted(table, below)[0]) > width:
        below.add(long.pop())
    return below


def _footnoted(table: Table, below: set[str]) -> tuple[Table, list[str]]:
    """Return a table with marks for words, and the footnotes, numbered as they are read."""
    if not below:
        return table, []
    noted = dict.fromkeys(cell for cell in _words(table) if cell in below)
    marks = {text: f"[{number}]" for number, text in enumerate(noted, 1)}
    rows: list[Sequence[str]] = [
        [row[0], *(marks.get(cell, cell) for cell in row[1:])] for row in table.full_rows()
    ]
    return replace(table, rows=rows), [f"{mark} {text}" for text, mark in marks.items()]


def _names_shrunk(table: Table, over: int) -> Table:
    """Cut the beginning of long names: the end of a path tells files apart."""
    longest = max(_widths(table)[0] - over, _SHORT)
    rows = [list(row) for row in table.full_rows()]
    for row in rows:
        if len(row[0]) > longest:
            row[0] = f"…{row[0][1 - longest :]}"
    return replace(table, rows=list[Sequence[str]](rows))
