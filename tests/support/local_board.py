"""A board that is this machine: commands in a subprocess, files in its own file system."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from dsconvert.deploy.devices.board import BoardDevice
from dsconvert.deploy.devices.transport import Done, PutFailed


@dataclass(frozen=True)
class LocalTransport:
    """A `Transport` without a network.

    Attributes:
        wrap: Makes of a command the one that is run.
        environment: What is added to that of this process.
    """

    wrap: Callable[[list[str]], list[str]]
    environment: Mapping[str, str]

    async def run(self, command: Sequence[str], *, on_line=None) -> Done:
        process = await asyncio.create_subprocess_exec(
            *self.wrap(list(command)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, **self.environment},
        )
        lines = []

        async def listen():
            async for line in process.stdout:
                lines.append(line.decode())
                if on_line is not None:
                    on_line(lines[-1])

        try:
            _, complaints = await asyncio.gather(listen(), process.stderr.read())
        except asyncio.CancelledError:
            process.stdin.write(b"stop\n")
            await process.wait()
            raise
        code = await process.wait()
        return Done(code if code >= 0 else None, "".join(lines), complaints.decode())

    async def put(self, content: bytes | Path, path: str) -> None:
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_bytes(content if isinstance(content, bytes) else content.read_bytes())
        except OSError as error:
            raise PutFailed(error.strerror) from error

    async def get(self, path: str) -> bytes | None:
        return Path(path).read_bytes() if Path(path).exists() else None

    async def free_bytes(self, folder: str) -> int | None:
        return shutil.disk_usage(folder).free


def local_board(
    name: str,
    *,
    python: str,
    folder: Path,
    wrap: Callable[[list[str]], list[str]] = list,
    environment: Mapping[str, str] | None = None,
    **options,
) -> BoardDevice:
    """A board whose Python is ``python``, with its temporary files in ``folder``."""

    @asynccontextmanager
    async def connect():
        yield LocalTransport(wrap, environment or {})

    return BoardDevice(name, connect, python=python, folder=str(folder), **options)
