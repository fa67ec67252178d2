"""A board that is this machine: commands in a subprocess, files in its own file system."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from dsconvert.deploy.devices.board import BoardDevice
from dsconvert.deploy.devices.local_transport import LocalTransport

PIPE = asyncio.subprocess.PIPE


class WrappedTransport(LocalTransport):
    """Commands are changed before they run, in an environment with additions."""

    def __init__(
        self, wrap: Callable[[list[str]], list[str]], environment: Mapping[str, str]
    ) -> None:
        self.wrap = wrap
        self.environment = environment

    async def start(self, command: Sequence[str]):
        return await asyncio.create_subprocess_exec(
            *self.wrap(list(command)),
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            env={**os.environ, **self.environment},
        )


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
        yield WrappedTransport(wrap, environment or {})

    return BoardDevice(name, connect, python=python, folder=str(folder), **options)
