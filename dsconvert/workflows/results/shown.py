"""How results become records that print themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from dsconvert.base.tables import Block, Shown

T = TypeVar("T")
S = TypeVar("S", bound=msgspec.Struct)


def shown(kind: type[S], record: msgspec.Struct) -> S:
    """Give a record of a lower layer the class that prints it.

    Args:
        kind: A subclass of the record's class, without fields of its own.
        record: The record.
    """
    return kind(**{name: getattr(record, name) for name in record.__struct_fields__})


class Results(list[T], Shown):
    """Several results of one call, in the order of what was asked.

    Args:
        found: The results.
        show: Gives the lines and tables of all of them.
        passed: Whether all that was asked for was done.

    Attributes:
        passed: The same; the command line ends with exit code 1 otherwise.
    """

    def __init__(
        self,
        found: Iterable[T],
        show: Callable[[list[T]], Iterable[Block]],
        *,
        passed: bool = True,
    ) -> None:
        super().__init__(found)
        self._show = show
        self.passed = passed

    def blocks(self) -> Iterator[Block]:
        """Give the lines and tables of all results."""
        yield from self._show(self)

    def to_dict(self) -> dict[str, Any]:
        """Give the results as plain values.

        Returns:
            Under "results" a list of dictionaries.
        """
        return {"results": msgspec.to_builtins(list(self))}

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the results as the command line prints them with ``--json``.

        Args:
            path: The .json file.
            overwrite: Whether it may exist.

        Returns:
            The file.

        Raises:
            InputError: If it cannot be written.
        """
        from ..outputs import write_json

        write_json(list(self), Path(path), overwrite=overwrite)
        return Path(path)

    __repr__ = Shown.__repr__
