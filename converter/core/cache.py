"""Where results that took long are kept between runs."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from .types import Choice, Effect


def cache_folder() -> Path:
    """``$DSCONVERT_CACHE``, or the platform's folder for caches. It need not exist."""
    chosen = os.environ.get("DSCONVERT_CACHE")
    if chosen:
        return Path(chosen)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA", "")
        return (Path(base) if base else Path.home() / "AppData" / "Local") / "dsconvert" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "dsconvert"
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base else Path.home() / ".cache") / "dsconvert"


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    layer: str
    choice: Choice
    effect: Effect


class EffectCache:
    """The effects measured so far for one model, one set of images and one way of measuring.

    One line per effect is added as soon as it is known, so that an interrupted run goes on where
    it stopped. A line that cannot be read, as one cut short, is left out.

    Args:
        parts: What the effects depend on: hashes, versions, settings.
        folder: Where the file is kept; None for `cache_folder`.
    """

    def __init__(self, *parts: object, folder: Path | None = None) -> None:
        name = hashlib.sha256(repr(parts).encode()).hexdigest()[:32]
        self.path = (folder or cache_folder()) / "effects" / f"{name}.jsonl"

    def known(self) -> dict[tuple[str, Choice], Effect]:
        """What is there already."""
        return {(entry.layer, entry.choice): entry.effect for entry in self._entries()}

    def record(self, layer: str, choice: Choice, effect: Effect) -> None:
        """Add one effect."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            file.write(msgspec.json.encode(_Entry(layer, choice, effect)) + b"\n")

    def _entries(self) -> Iterator[_Entry]:
        if not self.path.exists():
            return
        for line in self.path.read_bytes().splitlines():
            try:
                yield msgspec.json.decode(line, type=_Entry)
            except msgspec.DecodeError:
                continue
