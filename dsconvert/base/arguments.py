"""Arguments of another class than a function takes: refused in words, as all other input is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeVar

from .errors import InputError

_Value = TypeVar("_Value")


def of_kind(value: _Value, kind: type, what: str) -> _Value:
    """Return an argument that may be left out.

    Args:
        value: The argument; None where it was left out.
        kind: Its class.
        what: What the function calls it.

    Raises:
        InputError: If it is of another class.

    Example:
        >>> of_kind(3, int, "runs")
        3
    """
    if value is None or isinstance(value, kind):
        return value
    article = "an" if kind.__name__[0] in "AEIO" else "a"
    raise _wrong(value, f"{article} {kind.__name__}", what)


def as_path(value: str | os.PathLike[str], what: str) -> Path:
    """Return an argument as a path.

    Raises:
        InputError: If it is none.
    """
    if isinstance(value, str | os.PathLike):
        return Path(value)
    raise _wrong(value, "a path", what)


def _wrong(value: object, wanted: str, what: str) -> InputError:
    return InputError(
        f"{what} is a {type(value).__name__}; {wanted} is required.", code="wrong-type"
    )
