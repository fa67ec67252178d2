"""Results as people read them: lines of text and tables, without knowing what prints them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from typing import Any


@dataclass
class Table:
    """Rows of cells under titles.

    Attributes:
        titles: Of the columns, those with words to the left.
        numbers: Titles of the columns after them, whose cells are aligned to the right.
        last: Titles of columns of words after those.
        rows: Cells; a row may be short.
        least: Titles of the columns that are left out first where the table is too wide.
    """

    titles: Sequence[str]
    numbers: Sequence[str] = ()
    last: Sequence[str] = ()
    rows: list[Sequence[str]] = field(default_factory=list)
    least: Sequence[str] = ()

    @property
    def columns(self) -> list[tuple[str, bool]]:
        """Each title, and whether its cells are aligned to the right."""
        words = [(title, False) for title in self.titles]
        return [*words, *((t, True) for t in self.numbers), *((t, False) for t in self.last)]

    def add(self, *cells: str) -> None:
        """Add a row."""
        self.rows.append(cells)

    def full_rows(self) -> list[list[str]]:
        """Return the rows with an empty cell where one is short."""
        width = len(self.columns)
        return [[*row, *[""] * (width - len(row))] for row in self.rows]

    def without(self, title: str) -> Table:
        """Return the table without a column."""
        at = [found for found, _ in self.columns].index(title)
        rows: list[Sequence[str]] = [[*row[:at], *row[at + 1 :]] for row in self.full_rows()]
        titles, numbers, last = (
            [t for t in titles if t != title] for titles in (self.titles, self.numbers, self.last)
        )
        return replace(self, titles=titles, numbers=numbers, last=last, rows=rows)

    def without_empty(self) -> Table:
        """Return the table without the columns in which no row has anything."""
        table = self
        for at, (title, _) in enumerate(self.columns):
            if all(row[at] in ("", "–") for row in self.full_rows()):
                table = table.without(title)
        return table


Block = str | Table
"""A line, or a table."""


class Shown:
    """A result that prints as its tables.

    A subclass says in `blocks` what is to be read.
    """

    __slots__ = ()

    def blocks(self) -> Iterable[Block]:
        """Give the lines and tables that show the result."""
        raise NotImplementedError

    def details(self) -> Iterable[Block]:
        """Give what ``-v`` shows: by default no more than `blocks`."""
        return self.blocks()

    def to_dict(self) -> dict[str, Any]:
        """Give the whole result as plain values: what ``--json`` prints.

        Returns:
            Dictionaries, lists, numbers and texts, under the names of the fields.
        """
        import msgspec

        found: dict[str, Any] = msgspec.to_builtins(getattr(self, "record", self))
        return found

    def __str__(self) -> str:
        return as_text(self.blocks())

    def __repr__(self) -> str:
        return as_text(self.blocks())

    def _repr_html_(self) -> str:
        return as_html(self.blocks())


def as_text(blocks: Iterable[Block]) -> str:
    """Set blocks in characters of one width."""
    return "\n".join(block if isinstance(block, str) else _text(block) for block in blocks)


def as_html(blocks: Iterable[Block]) -> str:
    """Set blocks in HTML, for notebooks."""
    return "".join(
        f"<div>{escape(block)}</div>" if isinstance(block, str) else _html(block)
        for block in blocks
    )


def _text(table: Table) -> str:
    titles = [title for title, _ in table.columns]
    lines = [titles, *table.full_rows()]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, (_, right) in zip(line, widths, table.columns, strict=True)
        ).rstrip()
        for line in lines
    )


def _html(table: Table) -> str:
    def row(tag: str, cells: Sequence[str]) -> str:
        styles = ["right" if right else "left" for _, right in table.columns]
        inner = "".join(
            f'<{tag} style="text-align: {style}">{escape(cell)}</{tag}>'
            for cell, style in zip(cells, styles, strict=True)
        )
        return f"<tr>{inner}</tr>"

    head = row("th", [title for title, _ in table.columns])
    return f"<table>{head}{''.join(row('td', cells) for cells in table.full_rows())}</table>"
