"""Programs and files on a board, one call after another, as the functions for phones want it.

The connection lives in an event loop; this is for a thread beside it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from dsconvert.base.errors import InputError

from .adb_shell import Said, TooSlow
from .transport import PutFailed, Transport

_ANSWER_S = 60.0
_PUSH_S = 600.0
T = TypeVar("T")


class Linked:
    """A `benchmark_turns.Machine` at the other end of a `Transport`.

    Args:
        name: What `--device` calls it.
        link: The way there.
        loop: The event loop of the link.
    """

    def __init__(self, name: str, link: Transport, loop: asyncio.AbstractEventLoop) -> None:
        self.serial = name
        self._link = link
        self._loop = loop
        self._now: asyncio.Task[Any] | None = None
        self._closed = False

    def shell(self, *words: str, timeout_s: float = _ANSWER_S) -> Said:
        """Run a command of these words."""
        done = self._wait(self._link.run(words), timeout_s)
        return Said(137 if done.code is None else done.code, done.stdout + done.stderr)

    def script(self, text: str, timeout_s: float = _ANSWER_S) -> Said:
        """Let its shell read a text.

        Raises:
            TooSlow: If that takes longer.
        """
        return self.shell("sh", "-c", text, timeout_s=timeout_s)

    def push(self, path: Path, to: str) -> None:
        """Copy a file there.

        Raises:
            InputError: If it cannot be written there.
        """
        try:
            self._wait(self._link.put(path, to), _PUSH_S)
        except PutFailed as error:
            raise InputError(
                f"{self.serial}: {path.name} cannot be written there: {error}",
                "See that its disk is neither full nor read-only.",
                code="device-not-writable",
            ) from error

    def pull(self, path: str, to: Path) -> bool:
        """Copy a file from there; whether it is there."""
        content = self._wait(self._link.get(path), _PUSH_S)
        if content is None:
            return False
        to.write_bytes(content)
        return True

    async def close(self) -> None:
        """End what runs, and let nothing more run; called in the event loop."""
        self._closed = True
        if self._now is not None and not self._now.done():
            self._now.cancel()
            await asyncio.wait({self._now})

    def _wait(self, work: Coroutine[Any, Any, T], timeout_s: float) -> T:
        async def tracked() -> T:
            self._now = asyncio.current_task()
            if self._closed:
                work.close()
                raise asyncio.CancelledError
            return await asyncio.wait_for(work, timeout_s)

        try:
            return asyncio.run_coroutine_threadsafe(tracked(), self._loop).result()
        except TimeoutError as error:
            raise TooSlow(f"{self.serial} did not answer within {timeout_s:.0f} s.") from error
