"""Commands that are killed, or whose disk is full, and what must hold afterwards.

A command works in a process forked from this one, which has the libraries loaded. Its inputs, an
output of an earlier run and the folders of other runs lie around it; afterwards they are looked at,
and the command is run once more in peace.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import resource
import shutil
import signal
import sys
import time
import traceback
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

PLENTY = 1 << 40


@dataclass(frozen=True)
class Command:
    """A command line, and what it writes.

    Attributes:
        words: Names of sound files stand as @name; the working folder is its own.
        outputs: The files that it writes under their real names.
        needs: Modules that are imported before the fork.
    """

    words: str
    outputs: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.words.split()[0]


_DATA = "--calibration @images.npz"
_KERAS = ("keras",)
COMMANDS = {
    command.name: command
    for command in (
        Command(f"plan @net.onnx -o plan.json --target-macs 0.8x {_DATA} --overwrite",
                ("plan.json",)),
        Command(f"rewrite @net.onnx -o out.onnx {_DATA} --overwrite", ("out.onnx",)),
        Command(f"export @net.onnx -o out.onnx --quantize int8 {_DATA} --overwrite",
                ("out.onnx",)),
        Command(f"sweep @net.onnx -o sweep.json --points 3 {_DATA} --overwrite", ("sweep.json",)),
        Command("profile @net.onnx @int8.onnx --runs 20 --min-seconds 0"),
        Command("optimize @net.onnx --data @images.npz -o run --epochs 0 --samples 16 "
                "--test-samples 8 --max-pairs 1 --formats onnx-int8",
                ("run/report.json", "run/report.html", "run/recipe.toml")),
        Command("import @net.onnx -o net.keras --overwrite", ("net.keras",), _KERAS),
        Command("finetune @net.keras --teacher @net.keras --data @images.npz -o tuned.keras "
                "--epochs 2 --save-minutes 0 --overwrite", ("tuned.keras",), _KERAS),
    )
}  # fmt: skip


@dataclass
class Place:
    """A folder in which one command works.

    Args:
        command: The command.
        sound: The folder of sound files: copies of them are its inputs.
        folder: The folder.
    """

    command: Command
    sound: Path
    folder: Path
    before: dict[str, str] = field(default_factory=dict)
    killed: bool = False
    left: list[str] = field(default_factory=list)
    said: str = ""

    def prepare(self) -> None:
        """Bring the inputs."""
        shutil.rmtree(self.folder, ignore_errors=True)
        (self.folder / "in").mkdir(parents=True)
        for word in self.command.words.split():
            if word.startswith("@"):
                shutil.copy(self.sound / word[1:], self.folder / "in" / word[1:])
        self.remember()

    def remember(self) -> None:
        """Take what lies there as what must not be lost."""
        self.before = {
            str(path.relative_to(self.folder)): _hash(path)
            for path in sorted(self.folder.rglob("*"))
            if path.is_file() and not _temporary(path.relative_to(self.folder))
        }

    def forget(self) -> None:
        """Remove the cache: the next run computes again what this one keeps."""
        shutil.rmtree(self.folder / "home" / "cache", ignore_errors=True)

    @property
    def words(self) -> list[str]:
        inputs = str(self.folder / "in")
        found = [f"{inputs}/{w[1:]}" if w[0] == "@" else w for w in self.command.words.split()]
        return [*found, "--resume"] if self.interrupted else found

    @property
    def interrupted(self) -> bool:
        """Tell whether a run has left the state that it can go on from."""
        return any((self.folder / f"{name}.state").is_file() for name in self.command.outputs)

    def run(self, *, after: float | None = None, room: int = PLENTY, patience: float = 600) -> int:
        """Run the command in a child.

        Args:
            after: Seconds until it is killed; None lets it end.
            room: Bytes that a file may have.
            patience: Seconds until it counts as hanging.

        Returns:
            Its exit code; negative for a signal.
        """
        return self.end(*self.start(room), patience if after is None else after)

    def start(self, room: int = PLENTY) -> tuple[int, int]:
        """Start the command; the child's number, and the pipe that it speaks into."""
        self.killed, self.left = False, []
        read, write = os.pipe()  # a limit on files is none on a pipe
        fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 1 << 20)
        child = os.fork()
        if child == 0:
            os.setpgid(0, 0)
            _work(self.words, self.folder, room, write)
        os.close(write)
        return child, read

    def end(self, child: int, pipe: int, seconds: float = 600) -> int:
        """Wait for a child; its exit code, negative for a signal."""
        try:
            return self._end(child, seconds)
        finally:
            self.said = _all_of(pipe)

    def _end(self, child: int, seconds: float) -> int:
        """Wait for a child, and kill it at the end of its time."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.002)
        self.killed = True
        family = psutil.Process(child).children(recursive=True)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        self.left = _still_there(family)
        return os.waitstatus_to_exitcode(status)

    @property
    def _complete(self) -> bool:
        return all((self.folder / name).is_file() for name in self.command.outputs)

    def faults(self) -> list[str]:
        """Say what does not hold any more."""
        found = [f"process {name} goes on" for name in self.left]
        ours = set(self.command.outputs)
        for name, digest in self.before.items():
            path = self.folder / name
            if not path.is_file():
                if not (name.endswith(".state") and self._complete):  # needed no more
                    found.append(f"{name} is lost")
            elif _hash(path) != digest and name not in ours and not _own_book(name):
                found.append(f"{name} is another one")
        for path in sorted(self.folder.rglob("*")):
            name = path.relative_to(self.folder)
            if path.is_file() and not _temporary(name) and str(name) not in self.before:
                problem = _problem(path)
                if problem:
                    found.append(f"{name} is half-written: {problem}")
        for name in ours:
            path = self.folder / name
            problem = _problem(path) if path.is_file() else ""
            if problem:
                found.append(f"{name} is half-written: {problem}")
        if "Traceback" in self.said:
            found.append("traceback")
        return found


def _work(words: Sequence[str], folder: Path, room: int, said: int) -> None:
    """Run in the child: the command with its own home, streams and limits."""
    code = 99
    try:
        os.dup2(said, 1)
        os.dup2(said, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", errors="replace", closefd=False)
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="replace", closefd=False)
        (folder / "home").mkdir(exist_ok=True)
        (folder / "tmp").mkdir(exist_ok=True)
        os.environ |= {
            "HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp"),
            "DSCONVERT_CACHE": str(folder / "home" / "cache"),
        }  # fmt: skip
        import tempfile

        tempfile.tempdir = str(folder / "tmp")
        os.chdir(folder)
        if room != PLENTY:
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
        from dsconvert.cli import main

        try:
            main(list(words), prog_name="dsconvert")
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        os._exit(code)


def _all_of(pipe: int) -> str:
    """Read what is in a pipe, whoever may still hold its other end; close it."""
    os.set_blocking(pipe, False)
    found = b""
    try:
        while piece := os.read(pipe, 1 << 16):
            found += piece
    except BlockingIOError:
        pass
    os.close(pipe)
    return found.decode(errors="replace")


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _temporary(name: Path) -> bool:
    """Tell whether a file lies in a folder that says that it is being written, or is a book."""
    parts = name.parts
    return any(part.startswith(".") for part in parts) or parts[0] in ("tmp", "home")


def _own_book(name: str) -> bool:
    """Tell whether a file grows while a run goes on."""
    return name.startswith("run/") or name.endswith(".state")


def _problem(path: Path) -> str:
    """Say what keeps a file from being read; empty if nothing does."""
    try:
        _READERS.get(path.suffix, lambda _: None)(path)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _read_onnx(path: Path) -> None:
    import onnx

    onnx.checker.check_model(onnx.load(path))


def _read_keras(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        bad = archive.testzip()
        if bad or "model.weights.h5" not in archive.namelist():
            raise ValueError(f"member {bad}")


def _read_html(path: Path) -> None:
    if not path.read_text().rstrip().endswith("</html>"):
        raise ValueError("it has no end")


def _read_toml(path: Path) -> None:
    import tomllib

    tomllib.loads(path.read_text())


_READERS: dict[str, Callable[[Path], Any]] = {
    ".onnx": _read_onnx,
    ".keras": _read_keras,
    ".json": lambda path: json.loads(path.read_text()),
    ".html": _read_html,
    ".toml": _read_toml,
    ".npz": lambda path: zipfile.ZipFile(path).testzip(),
    ".state": lambda path: zipfile.ZipFile(path).testzip(),
}


def _still_there(family: Sequence[psutil.Process]) -> list[str]:
    """Name the processes that go on without the command; end them."""
    _, alive = psutil.wait_procs(list(family), timeout=10)
    names = []
    for process in alive:
        try:
            names.append(" ".join(process.cmdline())[:80])
            process.kill()
        except psutil.Error:
            continue
    return names
