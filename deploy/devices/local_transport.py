"""The way to this machine itself: commands in a subprocess, files in its own file system."""

from __future__ import annotations

import asyncio
import shutil
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from .transport import Done, PutFailed

_END_S = 5.0
"""What a command that shall end gets for doing so by itself."""
_LINE = 2**24
"""Bytes of the longest line of output."""


class LocalTransport:
    """A `Transport` without a network."""

    async def start(self, command: Sequence[str]) -> Process:
        """Start a command with pipes."""
        return await asyncio.create_subprocess_exec(
            *command, stdin=PIPE, stdout=PIPE, stderr=PIPE, limit=_LINE
        )

    async def run(
        self, command: Sequence[str], *, on_line: Callable[[str], None] | None = None
    ) -> Done:
        """Run a command; see `Transport.run`."""
        process = await self.start(command)
        assert process.stdout is not None, "it was started with pipes"
        assert process.stderr is not None, "it was started with pipes"
        out, lines = process.stdout, []

        async def listen() -> None:
            async for line in out:
                lines.append(line.decode(errors="replace"))
                if on_line is not None:
                    on_line(lines[-1])

        try:
            _, complaints = await asyncio.gather(listen(), process.stderr.read())
            code = await process.wait()
        except asyncio.CancelledError:
            await _end(process)
            raise
        return Done(
            code if code >= 0 else None, "".join(lines), complaints.decode(errors="replace")
        )

    async def put(self, content: bytes | Path, path: str) -> None:
        """Write a file; see `Transport.put`."""
        place = Path(path)
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                place.write_bytes(content)
            else:
                shutil.copyfile(content, place)
        except OSError as error:
            raise PutFailed(error.strerror or str(error)) from error

    async def get(self, path: str) -> bytes | None:
        """Read a file; see `Transport.get`."""
        place = Path(path)
        return place.read_bytes() if place.exists() else None

    async def free_bytes(self, folder: str) -> int | None:
        """Return the space left; see `Transport.free_bytes`."""
        return shutil.disk_usage(folder).free


async def _end(process: Process) -> None:
    """End a command: by a line first, which the runner understands."""
    assert process.stdin is not None, "it was started with pipes"
    with suppress(OSError):
        process.stdin.write(b"stop\n")
        await process.stdin.drain()
    try:
        async with asyncio.timeout(_END_S):
            await process.wait()
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
