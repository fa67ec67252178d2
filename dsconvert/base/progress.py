"""How long work tells its progress without knowing who listens."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

Advance = Callable[[], None]
Progress = Callable[[str, int], AbstractContextManager[Advance]]
"""``with progress("Fitting layers", 12) as advance: ... advance()`` twelve times."""

_WIDTH = 24
"""Characters of a bar."""


@contextmanager
def silent(label: str, total: int) -> Iterator[Advance]:
    """Give the progress nobody sees: the default of every function that takes one."""
    del label, total
    yield lambda: None


@contextmanager
def plain(label: str, total: int) -> Iterator[Advance]:
    """Draw a bar of characters on stderr, or a line at the start where that is no terminal."""
    stream = sys.stderr
    if not stream.isatty():
        stream.write(f"{label} …\n")
        yield lambda: None
        return
    done = 0

    def draw() -> None:
        filled = _WIDTH * done // total if total else 0
        stream.write(f"\r{label} [{'#' * filled:-<{_WIDTH}}] {done}/{total}")
        stream.flush()

    def advance() -> None:
        nonlocal done
        done += 1
        draw()

    draw()
    try:
        yield advance
    finally:
        stream.write("\n")


def as_progress(wanted: Progress | bool) -> Progress:
    """Turn what a public function was given into something to call.

    Args:
        wanted: True for a bar on stderr, False for silence, or a function of one's own.
    """
    if isinstance(wanted, bool):
        return plain if wanted else silent
    return wanted
