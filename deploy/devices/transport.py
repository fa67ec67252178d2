"""The way to a board: commands and files, whatever carries them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dsconvert.base.errors import InputError


class PutFailed(Exception):
    """A file could not be written on the board; its text says why."""


class Lost(InputError):
    """The board cannot be reached any more."""

    default_code = "connection-lost"


@dataclass(frozen=True)
class Done:
    """A command that has ended.

    Attributes:
        code: Its exit code; None if a signal ended it.
        stdout: What it printed.
        stderr: And complained.
    """

    code: int | None
    stdout: str
    stderr: str

    @property
    def last_words(self) -> str:
        """The last line of what it said, for an error."""
        lines = (self.stderr.strip() or self.stdout.strip()).splitlines()
        return lines[-1][:300] if lines else f"exit code {self.code}"


class Transport(Protocol):
    """An open connection to a board."""

    async def run(
        self, command: Sequence[str], *, on_line: Callable[[str], None] | None = None
    ) -> Done:
        """Run a command to its end; when cancelled, end it.

        Its standard input stays open. When cancelled it gets a line there and SIGTERM, and some
        seconds to end by itself.

        Args:
            command: Words, which reach the command as they are.
            on_line: Told of each line of its output at once.

        Raises:
            Lost: If the connection broke.
        """
        ...

    async def put(self, content: bytes | Path, path: str) -> None:
        """Write a file, making the folders that it is in.

        Raises:
            PutFailed: If it cannot be written there.
            Lost: If the connection broke.
        """
        ...

    async def get(self, path: str) -> bytes | None:
        """Read a file; None if it is not there.

        Raises:
            Lost: If the connection broke.
        """
        ...

    async def free_bytes(self, folder: str) -> int | None:
        """Return the space that is left for files in a folder; None if the board does not say."""
        ...


Connect = Callable[[], AbstractAsyncContextManager[Transport]]
"""Opens a connection, and closes it. It raises `InputError` if there is none to be had."""
