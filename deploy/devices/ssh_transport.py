"""Commands and files over one ssh connection."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

from .transport import Done, Lost, PutFailed

_BY_ITSELF_S, _BY_SIGNAL_S = 3.0, 10.0
"""What a command that shall end gets for doing so: first by itself, then by a signal."""
_MARK = "dsconvert-process"
_START = f'echo "{_MARK} $$"; exec "$@"'
"""A login script may print before; what comes after this line is the command's."""
_KILL = 'read -r stat < "/proc/$1/stat" && set -- ${stat##*) } && kill -s TERM -- "-$3"'
"""Ends all that a command has started: its process group is the third word after its name. Not by
a signal over the connection, which OpenSSH refuses where the server and the user are the same."""


class SshTransport:
    """A `Transport` over asyncssh.

    Args:
        name: What `--device` calls the board.
        connection: An open ``asyncssh.SSHClientConnection``.
        sftp: Its ``SFTPClient``.
    """

    def __init__(self, name: str, connection: Any, sftp: Any) -> None:
        self._name = name
        self._connection = connection
        self._sftp = sftp

    async def run(
        self, command: Sequence[str], *, on_line: Callable[[str], None] | None = None
    ) -> Done:
        """Run a command; see `Transport.run`. Every word reaches it as it is: shlex quotes it."""
        with self._watched():
            process = await self._started(command)
            number = ""
            lines: list[str] = []

            async def listen() -> None:
                nonlocal number
                async for line in process.stdout:
                    if not number:
                        number = _number_in(line)
                        continue
                    lines.append(line)
                    if on_line is not None:
                        on_line(line)

            try:
                _, complaints = await asyncio.gather(listen(), process.stderr.read())
                await process.wait_closed()
            except asyncio.CancelledError:
                await self._end(process, number)
                raise
            finally:
                process.close()
            if process.exit_status is None:
                raise Lost(f"{self._name}: the connection was lost.", "Is the board still on?")
            code = None if process.exit_signal else process.exit_status
            return Done(code, "".join(lines), complaints)

    async def put(self, content: bytes | Path, path: str) -> None:
        """Write a file; see `Transport.put`."""
        import asyncssh

        with self._watched():
            try:
                await self._sftp.makedirs(str(PurePosixPath(path).parent), exist_ok=True)
                if isinstance(content, Path):
                    await self._sftp.put(str(content), path)
                else:
                    async with self._sftp.open(path, "wb") as file:
                        await file.write(content)
            except (asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection):
                raise
            except asyncssh.SFTPError as error:
                raise PutFailed(error.reason) from error

    async def get(self, path: str) -> bytes | None:
        """Read a file; see `Transport.get`."""
        import asyncssh

        with self._watched():
            try:
                async with self._sftp.open(path, "rb") as file:
                    content: bytes = await file.read()
            except asyncssh.SFTPNoSuchFile:
                return None
            return content

    async def free_bytes(self, folder: str) -> int | None:
        """Return the space left; see `Transport.free_bytes`."""
        import asyncssh

        with self._watched():
            try:
                found = await self._sftp.statvfs(folder)
            except (asyncssh.SFTPOpUnsupported, asyncssh.SFTPFailure):
                return None
            return int(found.bavail) * int(found.frsize)

    async def _process(self, command: Sequence[str]) -> Any:
        return await self._connection.create_process(
            shlex.join(command), encoding="utf-8", errors="replace"
        )

    async def _started(self, command: Sequence[str]) -> Any:
        """Start a command; one that is not wanted any more when it has started is ended."""
        starting = asyncio.ensure_future(self._process(["sh", "-c", _START, "sh", *command]))
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            with suppress(Exception):
                async with asyncio.timeout(_BY_SIGNAL_S):
                    process = await starting
                await self._end(process, "")
                process.close()
            raise

    async def _end(self, process: Any, number: str) -> None:
        """End a command: the runner by a line, anything else by a signal, and wait for it.

        Args:
            process: The command.
            number: Its number there; empty if that was not read yet.
        """
        with suppress(Exception):  # whatever is wrong with the connection: it is over
            process.stdin.write("stop\n")
            with suppress(TimeoutError):
                async with asyncio.timeout(_BY_ITSELF_S):
                    await process.wait_closed()
                    return
            async with asyncio.timeout(_BY_SIGNAL_S):
                while not number and (line := await process.stdout.readline()):
                    number = _number_in(line)
                await (await self._process(["sh", "-c", _KILL, "sh", number])).wait()
                await process.wait_closed()

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Say in one way that the connection is gone."""
        import asyncssh

        try:
            yield
        except (asyncssh.Error, ConnectionError, BrokenPipeError) as error:
            reason = getattr(error, "reason", "") or str(error)
            raise Lost(
                f"{self._name}: the connection was lost: {reason}", "Is the board still on?"
            ) from error


def _number_in(line: str) -> str:
    """Return the number of a command's process if this is the line that tells it, else nothing."""
    mark, _, rest = line.strip().partition(" ")
    return rest if mark == _MARK else ""
