"""Importing and calling what a user names on the command line as "package.module:name"."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def users_code() -> Iterator[None]:
    """Within this context the user's code runs: modules in the current folder are found first.

    Raises:
        RuntimeError: If the code would end the program, by `sys.exit` say: nobody would be told.
    """
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    except SystemExit as end:
        raise RuntimeError(f"it wants to end the program (SystemExit: {end.code})") from end
    finally:
        sys.path.remove(folder)


def import_named(spec: str) -> Any:
    """The object that "package.module:name" names. User code may raise anything on import."""
    module, _, name = spec.partition(":")
    with users_code():
        return getattr(importlib.import_module(module), name)
