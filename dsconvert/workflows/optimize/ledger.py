"""What a run has finished: one small file per stage, so that it goes on where it was stopped.

A stage counts as finished if its file names the key that the stage has now, and what it wrote is
still what it wrote. Files of a stage appear whole, and its own file is written after them: whatever
kills the process, a folder can be continued.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from dsconvert.base.errors import DsconvertError, InputError
from dsconvert.base.files import read_whole, replacing, sha256
from dsconvert.base.json_text import encoded
from dsconvert.base.messages import LOGGER

STAGES, LOCK, LOG = "stages", ".lock", "log.txt"


class StageRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one stage came to.

    Attributes:
        stage: Its name.
        key: The hash of all that its result depends on.
        seconds: How long it took.
        files: The files that it wrote, below the run's folder, with their hashes.
        notes: What was told meanwhile.
        failure: Why it has no result; empty if it has one.
        code: The failure's stable code.
        result: What it found.
    """

    stage: str
    key: str
    seconds: float
    files: dict[str, str] = {}
    notes: tuple[str, ...] = ()
    failure: str = ""
    code: str = ""
    result: Any = None


@dataclass(frozen=True)
class Stage:
    """One step of a run, as data.

    Attributes:
        name: Short and unique, the name of its file.
        title: What it does, for people.
        inputs: All that its result depends on, but for other stages.
        after: The stages whose results it uses.
        files: The files that it writes, below the run's folder.
        needed: Whether the run ends if it fails; else the failure is told and the run goes on.
    """

    name: str
    title: str
    inputs: Mapping[str, Any] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    needed: bool = True


class Ledger:
    """The stages of one folder.

    Args:
        folder: Of the run.
        told: Called with a line for people as a stage begins, and as it is found done.
    """

    def __init__(self, folder: Path, told: Callable[[str], None]) -> None:
        self.folder, self._told = folder, told
        self.records: dict[str, StageRecord] = {}
        self.ran: list[str] = []

    def key(self, stage: Stage) -> str:
        """Hash what a stage's result depends on; the stages before it must have been run."""
        before = [self.records[name].key for name in stage.after]
        text = encoded([stage.name, stage.inputs, before], ordered=True)
        return hashlib.sha256(text).hexdigest()

    def finished(self, stage: Stage) -> StageRecord | None:
        """Return what a stage has left, if that is what it would come to now."""
        try:
            record = msgspec.json.decode(read_whole(self._path(stage)), type=StageRecord)
        except (OSError, msgspec.DecodeError):
            return None
        if record.key != self.key(stage) or record.failure:
            return None
        whole = all(
            (self.folder / name).is_file() and sha256(self.folder / name) == digest
            for name, digest in record.files.items()
        )
        return record if whole else None

    def run(self, stage: Stage, work: Callable[[], Any]) -> StageRecord:
        """Run a stage unless it is finished.

        Args:
            stage: The stage.
            work: Does it; gives what can be written as JSON.

        Raises:
            DsconvertError: If the stage fails and is needed.
        """
        record = self.finished(stage)
        if record is not None:
            self._log(stage, f"done before, in {record.seconds:.1f} s")
            self._told(f"{stage.title}: done before")
        else:
            record = self._work(stage, work)
        self.records[stage.name] = record
        return record

    def _work(self, stage: Stage, work: Callable[[], Any]) -> StageRecord:
        self._log(stage, "started")
        self._told(f"{stage.title} …")
        started = time.monotonic()
        failure, code, result = "", "", None
        with _overheard() as notes:
            try:
                result = msgspec.to_builtins(work())
            except DsconvertError as error:
                self._log(stage, f"failed: {error.message}")
                if stage.needed:
                    raise
                failure, code = error.message, error.code
        files = {} if failure else {name: sha256(self.folder / name) for name in stage.files}
        record = StageRecord(
            stage=stage.name,
            key=self.key(stage),
            seconds=round(time.monotonic() - started, 2),
            files=files,
            notes=tuple(dict.fromkeys(notes)),
            failure=failure,
            code=code,
            result=result,
        )
        write_bytes(self._path(stage), encoded(record))
        self.ran.append(stage.name)
        self._log(stage, f"finished in {record.seconds:.1f} s")
        return record

    def _path(self, stage: Stage) -> Path:
        return self.folder / STAGES / f"{stage.name}.json"

    def _log(self, stage: Stage, text: str) -> None:
        with (self.folder / LOG).open("a", encoding="utf-8") as log:
            log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {stage.name}: {text}\n")


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file of the run's own where it takes its place at once."""
    with replacing(path, overwrite=True) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write a text of the run's own where it takes its place at once."""
    write_bytes(path, content.encode())


@contextmanager
def run_folder(folder: Path) -> Iterator[None]:
    """Make the folder of a run, or go on in it; nobody else may work there meanwhile.

    Raises:
        InputError: If it is not a run's folder, cannot be written, or another run is at work.
    """
    begun = (folder / STAGES).is_dir()
    if folder.exists() and not begun and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(
            f"{folder} exists and is no run's folder.",
            "Name a folder that does not exist yet, or that of a run to go on with.",
            code="not-a-run",
        )
    try:
        for name in (STAGES, "files", "models"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        lock = (folder / LOCK).open("w")
    except OSError as error:
        raise InputError(
            f"{folder} cannot be written: {error.strerror}.",
            "Name another folder with -o.",
            code="not-writable",
        ) from error
    with lock:
        if not _locked(lock.fileno()):
            raise InputError(
                f"another run is at work in {folder}.",
                "Wait for it, or name another folder with -o.",
                code="run-at-work",
            )
        _swept(folder)
        yield


def _locked(descriptor: int) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows: two runs at once are the user's own doing
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _swept(folder: Path) -> None:
    """Remove the temporary folders that a killed run has left: see `replacing`."""
    for place in (folder, folder / STAGES, folder / "files", folder / "models"):
        for left in place.glob(".*.*.*"):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)


@contextmanager
def _overheard() -> Iterator[list[str]]:
    """Collect the notes that are told meanwhile; they are still shown."""
    heard: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(str(getattr(record, "options", record.getMessage())))

    log, listener = logging.getLogger(LOGGER), Listener()
    log.addHandler(listener)
    try:
        yield heard
    finally:
        log.removeHandler(listener)


def fingerprint(source: str | Path) -> str:
    """Hash what a source of data, or a function of the user's, depends on, as far as that is known.

    Returns:
        The hash of a file, or of the module in which a function is; that of the names, sizes and
        times of the files of a folder or pattern; else the text itself.
    """
    from dsconvert.models.data.functions import is_function
    from dsconvert.models.data.records import files_of, is_records

    path, text = Path(source), str(source)
    if path.is_file():
        return sha256(path)
    if path.is_dir():
        return _of_files(
            sorted(Path(root) / name for root, _, files in os.walk(path) for name in files)
        )
    if is_records(text):
        return _of_files(files_of(text))
    if is_function(text):
        module = Path(*text.partition(":")[0].split(".")).with_suffix(".py")
        return f"{text} {sha256(module)}" if module.is_file() else text
    return text


def _of_files(files: Iterable[Path]) -> str:
    found = hashlib.sha256()
    for file in files:
        status = file.stat()
        found.update(f"{file} {status.st_size} {status.st_mtime_ns}\n".encode())
    return found.hexdigest()
