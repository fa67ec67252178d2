"""How long work tells its progress without knowing who listens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

Advance = Callable[[], None]
Progress = Callable[[str, int], AbstractContextManager[Advance]]
"""``with progress("Fitting layers", 12) as advance: ... advance()`` twelve times."""


@contextmanager
def silent(label: str, total: int) -> Iterator[Advance]:
    """The progress nobody sees: the default of every function that takes one."""
    del label, total
    yield lambda: None
