"""Where results that took long are kept between runs."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from dsconvert.base.cache_folder import cache_folder
from dsconvert.base.files import read_whole

from ..types import Choice, Effect

logger = logging.getLogger(__name__)


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    layer: str
    choice: Choice
    effect: Effect


class EffectCache:
    """The effects measured so far for one model, one set of images and one way of measuring.

    One line per effect is added as soon as it is known, so that an interrupted run goes on where
    it stopped. A line that cannot be read, as one cut short, is left out; a file that cannot be
    read or written makes the next run longer and does not stop this one.

    Args:
        parts: What the effects depend on: hashes, versions, settings.
        folder: Where the file is kept; None for `cache_folder`.
    """

    def __init__(self, *parts: object, folder: Path | None = None) -> None:
        name = hashlib.sha256(repr(parts).encode()).hexdigest()[:32]
        self.path = (folder or cache_folder()) / "effects" / f"{name}.jsonl"
        self._warned = False

    def known(self) -> dict[tuple[str, Choice], Effect]:
        """Return what is there already."""
        return {(entry.layer, entry.choice): entry.effect for entry in self._entries()}

    def record(self, layer: str, choice: Choice, effect: Effect) -> None:
        """Add one effect."""
        line = msgspec.json.encode(_Entry(layer, choice, effect)) + b"\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a+b") as file:
                if file.tell():
                    file.seek(-1, os.SEEK_END)
                    if file.read(1) != b"\n":  # the last run was cut short within a line
                        line = b"\n" + line
                file.write(line)
        except OSError as error:
            if not self._warned:
                logger.warning("effects cannot be kept for the next run: %s", error)
            self._warned = True

    def _entries(self) -> Iterator[_Entry]:
        try:
            lines = read_whole(self.path).splitlines()
        except OSError:
            return
        for line in lines:
            try:
                yield msgspec.json.decode(line, type=_Entry)
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue
