"""Importing what a user names on the command line as "package.module:name"."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def current_folder_importable() -> Iterator[None]:
    """Within this context modules in the current folder are found first."""
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def import_named(spec: str) -> Any:
    """The object that "package.module:name" names. User code may raise anything on import."""
    module, _, name = spec.partition(":")
    with current_folder_importable():
        return getattr(importlib.import_module(module), name)
