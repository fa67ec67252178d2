"""The state of a fine-tuning run on disk, so that an interrupted one can go on.

One .npz file: JSON about the run, and the arrays of the trained copy (its random states and the
averages of its weights included), of the optimizer and of the best weights so far.
"""

from __future__ import annotations

import glob
import hashlib
import os
import shutil
import time
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from dsconvert.base.errors import InputError
from dsconvert.base.files import replacing
from dsconvert.base.messages import note
from dsconvert.base.predictor import Array

from ..data.stored import Stored
from .replicas import Replicas
from .settings import Epoch, FinetuneSettings

_REFUSED = b"refused"
"""What the chief sends in the place of a state that it cannot use."""


class Identity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What makes two runs the same run.

    Attributes:
        settings: As given.
        student: Fingerprint of its weights at the start.
        teacher: Fingerprint of its weights.
        data: Fingerprint of the training data.
    """

    settings: FinetuneSettings
    student: str
    teacher: str
    data: str


class Underway(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What is done of the epoch after the last complete one.

    Attributes:
        steps: How many were taken.
        loss_sum: The sum of their losses.
        seconds: Wall time.
    """

    steps: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0


class _Header(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    schema: Literal["dsconvert.finetuning-state/4"] = "dsconvert.finetuning-state/4"
    identity: Identity
    history: tuple[Epoch, ...]
    underway: Underway


@dataclass(frozen=True)
class Checkpoint:
    """Everything that the rest of a run depends on.

    Attributes:
        history: The epochs so far, epoch 0 first.
        underway: What is done of the next one.
        trained: The variables of the trained copy.
        optimizer: The variables of its optimizer.
        best: The best weights so far.
    """

    history: tuple[Epoch, ...]
    underway: Underway
    trained: list[Array]
    optimizer: list[Array]
    best: list[Array]


class Keeper:
    """Keeps the state of one run on disk, every so many minutes and whenever it is told to.

    Args:
        path: The state file; None keeps nothing.
        identity: Of the run.
        minutes: Between two states within an epoch; 0 for each step.
    """

    def __init__(self, path: Path | None, identity: Identity, minutes: float) -> None:
        self._path = path
        self._identity = identity
        self._seconds = 60 * minutes
        self._saved = time.monotonic()

    def load(self) -> Checkpoint | None:
        """Read what an earlier run left, if it left something, and remove what it had begun.

        Raises:
            InputError: As `load_checkpoint`.
        """
        if self._path is None or not self._path.exists():
            return None
        checkpoint = load_checkpoint(self._path, self._identity)
        for begun in self._path.parent.glob(f".{glob.escape(self._path.name)}.*"):
            shutil.rmtree(begun, ignore_errors=True)
        return checkpoint

    def load_together(self, replicas: Replicas) -> Checkpoint | None:
        """Read what an earlier run of several processes left: the chief's, which all go on from.

        Raises:
            InputError: As `load_checkpoint`, in every process.
        """
        if replicas.count == len(replicas.local):
            return self.load()
        own, data, refusal = None, b"", None
        if replicas.chief:
            try:
                own = self.load()
                if own is not None and self._path is not None:
                    data = self._path.read_bytes()
            except InputError as error:
                refusal, data = error, _REFUSED
        data = replicas.from_chief(data)
        if refusal is not None:
            raise refusal
        if data == _REFUSED:
            raise InputError(
                "the first worker refused its state.", "Look at its output.", code="other-run"
            )
        if replicas.chief or not data:
            return own
        return load_checkpoint(BytesIO(data), self._identity)

    @property
    def due(self) -> bool:
        """Tell whether the last state is old enough."""
        return self._path is not None and time.monotonic() - self._saved >= self._seconds

    def save(self, checkpoint: Callable[[], Checkpoint]) -> None:
        """Replace the state, if one is kept."""
        if self._path is None:
            return
        try:
            save_checkpoint(self._path, self._identity, checkpoint())
        except InputError as error:  # a full disk must not end what has run for hours
            note(f"training goes on, its state is not kept: {error.words[0]}")
        self._saved = time.monotonic()


def fingerprint(arrays: Iterable[Array | Stored]) -> str:
    """Return a hash over shapes, types and values; of samples on disk over what they are."""
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode())
        if isinstance(array, Stored):
            digest.update(array.identity.encode())
            digest.update(array.numbers.data)
        else:
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def save_checkpoint(path: Path, identity: Identity, checkpoint: Checkpoint) -> None:
    """Replace the state file, or leave the old one if that fails."""
    header = msgspec.json.encode(
        _Header(identity=identity, history=checkpoint.history, underway=checkpoint.underway)
    )
    arrays = {
        f"{group}/{number}": array
        for group in ("trained", "optimizer", "best")
        for number, array in enumerate(getattr(checkpoint, group))
    }
    with replacing(path, overwrite=True) as temporary, temporary.open("wb") as file:
        # No allow_pickle=False: NumPy before 2.1 writes an array of that name.
        np.savez(file, header=np.frombuffer(header, np.uint8), **arrays)
        file.flush()
        os.fsync(file.fileno())  # a name must not lead to a file whose end is not written


def load_checkpoint(path: Path | BytesIO, identity: Identity) -> Checkpoint:
    """Read the state of the same run.

    Raises:
        InputError: If the file is not such a state, or belongs to another run.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            header = msgspec.json.decode(file["header"].tobytes(), type=_Header)
            groups: dict[str, list[Array]] = {"trained": [], "optimizer": [], "best": []}
            for name in file.files:  # in the order in which they were written
                if name != "header":
                    groups[name.split("/")[0]].append(file[name])
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, msgspec.MsgspecError) as error:
        raise InputError(
            f"{path} does not hold the state of a fine-tuning run: {error}",
            f"Name another file, or remove it: rm {path}",
            code="damaged-checkpoint",
        ) from error
    different = _differences(header.identity, identity)
    if different:
        raise InputError(
            f"{path} holds the state of another run: {'; '.join(different)}.",
            f"Run with the same inputs to continue it, or start anew: rm {path}",
            code="other-run",
        )
    return Checkpoint(history=header.history, underway=header.underway, **groups)


def _differences(then: Identity, now: Identity) -> list[str]:
    def told(name: str, before: Any, after: Any) -> list[str]:
        return [f"{name} was {before}, is {after}"] if before != after else []

    settings = msgspec.structs.asdict(then.settings)
    different = [
        text
        for name, before in settings.items()
        for text in told(name, before, getattr(now.settings, name))
    ]
    return different + [
        f"the {name} differs"
        for name in ("student", "teacher", "data")
        if getattr(then, name) != getattr(now, name)
    ]
