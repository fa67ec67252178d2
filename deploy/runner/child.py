"""Work in a process of its own, which may die without taking this one along."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import select
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Send = Callable[[dict[str, Any]], None]
"""Tells the parent something, at once."""
_DIE_WITH_PARENT = 1  # prctl's PR_SET_PDEATHSIG


class HungUp(Exception):
    """Nobody listens any more."""


class Stopped(Exception):
    """Whoever listens does not want more."""


def in_child(work: Callable[[Send], None], log: Path, attached: bool) -> Iterator[dict[str, Any]]:
    """Do something in a forked process; give what it sends, as it sends it.

    A fork is as good as a fresh process here, and does not need to know how this Python was
    started: this process has loaded neither numpy nor a runtime.

    Where there is no fork, as on Windows, the work is done in this process.

    Args:
        work: Is called in the child with what it sends messages by.
        log: The file that what it prints goes to, native code included.
        attached: Whether to stop when standard input ends, or says anything.

    Yields:
        The messages, then ``{"died": why}`` if it did not come to its end.

    Raises:
        HungUp: If standard input has ended. The child is gone then, as in every other case.
        Stopped: If a line came from there.
    """
    if not hasattr(os, "fork"):
        said: list[dict[str, Any]] = []
        work(said.append)
        yield from said
        return
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _be_child(work, log, writer)
    os.close(writer)
    status = None
    try:
        yield from _messages(reader, attached)
        status = os.waitpid(child, 0)[1]
    finally:
        os.close(reader)
        if status is None:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    if status != 0:
        yield {"died": _why(status, log)}


def _be_child(work: Callable[[Send], None], log: Path, writer: int) -> None:
    """Work and end, without running anything that the parent has prepared for its own end."""
    # Objects of the parent's may wait for its threads, which are not here, as they are destroyed:
    # OpenVINO's in a cycle let the collection before a measurement wait for ever.
    gc.freeze()
    status = 1
    try:
        with contextlib.suppress(Exception):  # not Linux
            ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        sink = os.open(str(log), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(sink, 1)
        os.dup2(sink, 2)

        def send(message: dict[str, Any]) -> None:
            data = json.dumps(message).encode() + b"\n"
            while data:
                data = data[os.write(writer, data) :]

        work(send)
        status = 0
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(status)


def _messages(reader: int, attached: bool) -> Iterator[dict[str, Any]]:
    """Yield the lines that come through the pipe, until its other end is closed."""
    pending = b""
    while True:
        ready = select.select([reader, 0] if attached else [reader], [], [])[0]
        if 0 in ready:
            raise Stopped if os.read(0, 4096) else HungUp
        if reader not in ready:
            continue
        data = os.read(reader, 1 << 16)
        if not data:
            return
        *lines, pending = (pending + data).split(b"\n")
        for line in lines:
            yield json.loads(line)


def _why(status: int, log: Path) -> str:
    """Return what a process died of."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = f"signal {number}"
        memory = ": out of memory?" if number == signal.SIGKILL else ""
        return f"it brought its process down ({name}{memory})"
    try:
        lines = log.read_text(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return f"exit code {os.WEXITSTATUS(status)}: {lines[-1][:300] if lines else 'no message'}"
