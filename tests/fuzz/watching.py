"""The process that reads damaged files, watched from outside: time, memory, and its end."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

MEMORY = 2 << 30
"""Bytes that an input may take above what the process takes that begins it."""
SECONDS = 20
"""Of processor time that an input may take."""
WAIT = 60
"""Seconds on the clock in which no process of an input asks for a processor."""
_EVERY = 0.05
"""Seconds between two looks at an input."""
_FAMILY = 5
"""Looks at the process that reads, of which one goes to its children too."""


class Watch:
    """Watches one process, which leads its group.

    Args:
        child: Its number.

    Attributes:
        seconds: Of processor time that the input now read has taken.
        size: Bytes above those at its beginning, of the largest process, as far as was looked.
        stopped: Why the process was ended: memory, hang or nothing.
    """

    def __init__(self, child: int) -> None:
        self.child = child
        self.seconds = self.size = 0.0
        self.stopped = ""
        self.begin()

    def begin(self) -> None:
        """Count from here: another input."""
        self._base, self._spent, _ = _used(self.child)
        self._idle = self.size = self.seconds = 0.0
        self._look = 0

    def lines(self, pipe: int) -> Iterator[str]:
        """Give the lines that come, and end the process where an input takes too much."""
        ends = select.poll()
        ends.register(pipe, select.POLLIN | select.POLLHUP)
        rest, seen = b"", time.monotonic()
        while not self.stopped:
            if not ends.poll(_EVERY * 1000):
                now = time.monotonic()
                self._glance(now - seen)
                seen = now
                continue
            piece = os.read(pipe, 4096)
            if not piece:
                return
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                with suppress(FileNotFoundError):
                    self.seconds = _used(self.child)[1] - self._spent
                yield line.decode()
            seen = time.monotonic()
        os.killpg(self.child, signal.SIGKILL)

    def _glance(self, passed: float) -> None:
        """Look at the process, now and then with its children; a busy machine is not its fault."""
        self._look += 1
        used = [_used(self.child)]
        if self._look % _FAMILY == 0 or used[0][2]:
            used += _children(self.child)
        self.size = max(self.size, *(size - self._base for size, _, _ in used))
        waiting = all(sleeps for _, _, sleeps in used)
        self._idle = self._idle + passed if waiting else 0.0
        self.seconds = sum(spent for _, spent, _ in used) - self._spent
        if self.size > MEMORY:
            self.stopped = "memory"
        elif self.seconds > SECONDS or self._idle > WAIT:
            self.stopped = "hang"

    def end(self) -> tuple[int, float]:
        """Take the process's end: its exit code, negative for a signal, and the last one's time."""
        _, status, used = os.wait4(self.child, 0)
        return os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime - self._spent


def _children(process: int) -> Iterator[tuple[float, float, bool]]:
    """What each process has used that a process started, and those that they started.

    Of /proc itself: psutil takes as long as most inputs do.
    """
    with suppress(OSError):
        for thread in os.listdir(f"/proc/{process}/task"):  # noqa: PTH208 - many times a second
            listed = Path(f"/proc/{process}/task/{thread}/children").read_text()
            for child in map(int, listed.split()):
                yield _used(child)
                yield from _children(child)


def _used(process: int) -> tuple[float, float, bool]:
    """Bytes, seconds of processor time with those of its ended children, and whether it sleeps."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    ticks = sum(map(int, fields[11:15]))
    size = int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
    return float(size), ticks / os.sysconf("SC_CLK_TCK"), fields[0] not in ("R", "D")
