"""Damaged inputs inside a forked child: limits, what may be written, and how each ends."""

from __future__ import annotations

import os
import resource
import runpy
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

from forms import Form

OUTSIDE = "wrote outside: "
READY = "damaged"
_COMPUTING = 1
"""Seconds of processor time for a child of a command, where the command gives it more: a small
file that takes as long is one that libhdf5 does not come to the end of."""
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_EVENTS = {
    "os.mkdir": (0,), "os.rename": (0, 1), "os.remove": (0,), "os.rmdir": (0,), "os.link": (1,),
    "os.symlink": (1,), "os.truncate": (0,), "shutil.rmtree": (0,), "shutil.move": (0, 1),
    "os.chmod": (0,), "os.utime": (0,),
}  # fmt: skip
_NETWORK = ("socket.connect", "socket.bind", "socket.sendto", "socket.getaddrinfo")


def work(
    form: Form, seeds: Sequence[int], sound: Path, cache: Path, places: Path, pipe: int
) -> None:
    """Damage one file after the other and give each to a command; ends the process.

    Args:
        form: Their format.
        seeds: Of the damages and the choices of the commands.
        sound: The folder of sound files.
        cache: What commands on these have left in theirs; each input begins with that.
        places: Where each input has a folder of its own, called by its seed.
        pipe: Told of each beginning, "seed", and of each end, "seed code bytes": the most bytes
            that a process had at once, above those at the beginning.
    """
    inside: list[str] = []
    _in_forks()
    for seed in seeds:
        place = places / str(seed)
        # What no output is named for lies beside its model, and what was there is looked at later.
        inside[:] = map(str, (place, sound, os.devnull, "/dev/shm", "/proc"))
        (place / "tmp").mkdir(parents=True)
        os.write(pipe, f"{seed}\n".encode())
        most = _Most()
        _speak_into(place)
        code = 99
        try:
            _begin_cache(cache, place / "cache")
            code = _one(form, seed, sound, place, inside if seed == seeds[0] else None)
        except BaseException:
            traceback.print_exc()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os.write(pipe, f"{seed} {code} {most()}\n".encode())
    os._exit(0)


class _Most:
    """Counts from when it is made: the most bytes of this process, or of one that it forked."""

    children = 0

    def __init__(self) -> None:
        _Most.children = 0
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        self._base = _of_status("VmRSS")

    def __call__(self) -> int:
        return max(_of_status("VmHWM"), _Most.children) - self._base


def _of_status(name: str) -> int:
    """Bytes that /proc tells of this process."""
    _, _, rest = Path("/proc/self/status").read_text().partition(f"{name}:")
    return int(rest.split()[0]) << 10


def _one(form: Form, seed: int, sound: Path, place: Path, guarded: list[str] | None) -> int:
    """Damage a file and give it to a command; the first one sets up the guard."""
    random = Random(f"{form.name} {seed}")
    (place / "in").mkdir()
    path = place / "in" / form.file
    form.mutate(random, sound, path)
    words = random.choice(form.words(str(path), sound))
    (place / READY).write_text(" ".join(words))
    os.environ |= {
        "HOME": str(place), "TMPDIR": str(place / "tmp"), "DSCONVERT_CACHE": str(place / "cache"),
        "DSCONVERT_DEVICES": str(path if form.name == "devices" else sound / "devices.toml"),
    }  # fmt: skip
    tempfile.tempdir = str(place / "tmp")
    os.chdir(place)
    if guarded is not None:
        sys.addaudithook(_guard(guarded))
    return _command(words)


def _begin_cache(cache: Path, place: Path) -> None:
    """Link to what is in a cache: the report's library, which takes longer than all else.

    What a command puts there replaces a link, and leaves what it led to.
    """
    if cache.exists():
        shutil.copytree(cache, place, copy_function=os.link)


def modules(words: Sequence[str], place: Path, cache: Path) -> None:
    """Run a command on sound files, write which modules it has imported, and end the process."""
    _speak_into(place)
    os.environ["DSCONVERT_CACHE"] = str(cache)
    os.chdir(place)
    try:
        _command(words)
    finally:
        (place / "modules").write_text("\n".join(sys.modules))
        os._exit(0)


def _speak_into(place: Path) -> None:
    """Let stdout and stderr lead to files, and stdin to nothing."""
    for number, name in ((1, "out"), (2, "err")):
        _lead(number, os.open(place / name, os.O_WRONLY | os.O_CREAT))
    _lead(0, os.open(os.devnull, os.O_RDONLY))
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", errors="replace", closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="replace", closefd=False)


def _lead(number: int, descriptor: int) -> None:
    os.dup2(descriptor, number)
    os.close(descriptor)


def _command(words: Sequence[str]) -> int:
    from dsconvert.cli import main

    try:
        main(list(words), prog_name="dsconvert")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    return 0


def _guard(inside: list[str]) -> Any:
    """An audit hook that notes what is written elsewhere, and whom is talked to.

    Args:
        inside: The paths below which may be written; others may stand there later.
    """

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _NETWORK:
            os.write(2, f"{OUTSIDE}{event} {arguments[1:]}\n".encode())
        elif event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & _WRITING and isinstance(path, str | bytes):
                tell(path)
        else:
            for number in _EVENTS.get(event, ()):
                tell(arguments[number])

    def tell(path: Any) -> None:
        if isinstance(path, int):
            return
        found = os.path.abspath(os.fsdecode(path))  # noqa: PTH100 - follows no links
        if not found.startswith(tuple(inside)) and not found.endswith(".pyc"):
            os.write(2, f"{OUTSIDE}{found}\n".encode())

    return hook


def _in_forks() -> None:
    """Let `run_python` fork instead of starting Python anew: same limits, a tenth of the time."""
    from dsconvert.base import child_process

    def run_python(
        arguments: Sequence[str],
        *,
        timeout: float | None = None,
        computing: int | None = None,
        memory: int | None = None,
    ) -> child_process.Finished:
        out, err = (Path("tmp") / f"child-{name}" for name in ("out", "err"))
        for path in (out, err):
            path.unlink(missing_ok=True)
        child = os.fork()
        if child == 0:
            for number, path in ((1, out), (2, err)):
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            if memory is not None:
                used = int(Path("/proc/self/statm").read_text().split()[0]) * 4096
                resource.setrlimit(resource.RLIMIT_AS, (used + memory, used + memory))
            if computing is not None:
                seconds = min(computing, _COMPUTING)
                resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
            sys.argv = list(arguments)
            code = 1
            try:
                runpy.run_path(arguments[0], run_name="__main__")
                code = 0
            except SystemExit as end:
                code = int(end.code or 0)
            except BaseException:
                traceback.print_exc()
            finally:
                for stream in (sys.stdout, sys.stderr):
                    stream.flush()
                os._exit(code)
        _, status, took = os.wait4(child, 0)
        _Most.children = max(_Most.children, took.ru_maxrss << 10)
        code = os.waitstatus_to_exitcode(status)
        said = [path.read_text(errors="replace") for path in (out, err)]
        if code == -signal.SIGXCPU:
            return child_process.Finished(1, said[0], said[1], timed_out=True)
        return child_process.Finished(code, said[0], said[1])

    real = child_process.run_python
    for module in list(sys.modules.values()):
        if getattr(module, "run_python", None) is real:
            module.run_python = run_python  # type: ignore[attr-defined]
