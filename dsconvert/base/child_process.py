"""Python in a process of its own, for native code that may crash or take all memory.

A parser written in C can end its process on a damaged file. In a child that is a result: the parent
learns of the signal and goes on. A child never imports modules from the user's current folder.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

_PATIENCE = 6
"""Times as long as its CPU time that a child may take where others need the CPU."""


@dataclass(frozen=True)
class Finished:
    """The end of a child process.

    Attributes:
        returncode: Its exit code; negative for a signal, as in `subprocess`.
        stdout: Its output.
        stderr: Its messages.
        timed_out: Whether it was ended since it took too long.
    """

    returncode: int
    stdout: str
    stderr: str
    timed_out: bool = False

    @property
    def failure(self) -> str:
        """The cause of a failure in a phrase; empty if the child succeeded.

        >>> Finished(-11, "", "").failure
        'it brought its process down (SIGSEGV)'
        """
        if self.timed_out:
            return "it did not end in time"
        if self.returncode == 0:
            return ""
        if self.returncode < 0:
            return f"it brought its process down ({_signal_name(-self.returncode)})"
        lines = self.stderr.strip().splitlines()
        return f"exit code {self.returncode}: {lines[-1] if lines else 'no message'}"


def run_python(
    arguments: Sequence[str],
    *,
    timeout: float | None = None,
    computing: int | None = None,
    memory: int | None = None,
) -> Finished:
    """Run Python in a child process that does not look into the current folder for modules.

    Args:
        arguments: As on Python's command line: a script and its arguments, or ``-m`` and a module.
        timeout: Seconds after which the child is ended; None waits. With ``computing`` six times
            as many seconds as that by default.
        computing: Seconds of CPU time that the child may take, on one core and more: what else the
            machine does is not held against it. Not on Windows.
        memory: Bytes of address space that the child may take; None for no limit. Not on Windows.
    """
    command = [sys.executable, "-P", *arguments]
    limited = (computing, memory) != (None, None) and sys.platform != "win32"
    if timeout is None and computing is not None:
        timeout = _PATIENCE * computing
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=timeout,
            env=_surroundings(),
            preexec_fn=_limiter(computing, memory) if limited else None,
        )
    except subprocess.TimeoutExpired as error:
        out, err = (
            (part or b"").decode("utf-8", "replace") for part in (error.stdout, error.stderr)
        )
        return Finished(1, out, err, timed_out=True)
    return Finished(
        done.returncode,
        done.stdout.decode("utf-8", "replace"),
        done.stderr.decode("utf-8", "replace"),
        timed_out=limited and done.returncode == -signal.SIGXCPU,
    )


def _surroundings() -> dict[str, str]:
    """Return the environment, but for what would change what a child says, and whether it works.

    Its output is read as UTF-8, and a library's warning is no failure.
    """
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}
    return {**kept, "PYTHONIOENCODING": "utf-8"}


class _limiter:  # noqa: N801 - a function with a value
    def __init__(self, computing: int | None, memory: int | None) -> None:
        self.computing, self.memory = computing, memory

    def __call__(self) -> None:
        import resource

        if self.memory is not None:
            _lower(resource.RLIMIT_AS, self.memory, self.memory)
        if self.computing is not None:  # a signal first, that nothing here ignores
            _lower(resource.RLIMIT_CPU, self.computing, self.computing + 5)


def _lower(what: int, soft: int, hard: int) -> None:
    """Set a limit of this process, within what the user's shell, or a cluster, allows."""
    import resource

    _, most = resource.getrlimit(what)
    if most != resource.RLIM_INFINITY:
        soft, hard = min(soft, most), min(hard, most)
    resource.setrlimit(what, (soft, hard))


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
