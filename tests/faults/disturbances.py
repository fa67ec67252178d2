"""What is done to a command, and what is looked at afterwards: each returns what did not hold."""

from __future__ import annotations

import io
import os
import signal
import time
import zipfile
from pathlib import Path
from random import Random

import numpy as np
from disturbed import Place

_YEARS = 10 * 365 * 86_400
_WEIGHTS = 2e-5
"""How far weights may be apart that come from sums in another order."""


def killed(place: Place, random: Random, seconds: float) -> list[str]:
    """Kill the command at a random moment, and look.

    Args:
        place: Where; one command after the other may be killed in it.
        random: Chooses the moment.
        seconds: What the command takes in peace.
    """
    code = place.run(after=random.uniform(0.02, 0.95) * seconds)
    found = place.faults()
    if code not in (0, 1, -signal.SIGKILL):
        found.append(f"exit code {code}: {place.said[-300:]}")
    return found


def in_peace(place: Place) -> list[str]:
    """Run the command after all that; where it left a state, going on from there."""
    code = place.run()
    found = place.faults()
    if code not in (0, 1):
        found.append(f"the next run ends with {code}: {place.said[-300:]}")
    found += [f"{name} is missing" for name in place.command.outputs
              if not (place.folder / name).is_file()]  # fmt: skip
    return found


def full(place: Place, random: Random) -> tuple[bool, list[str]]:
    """Run it with little room on the disk; whether it said so, and what did not hold."""
    code = place.run(room=random.choice((0, 1, 100, 1000, 4096, 20_000)))
    found = place.faults()
    if code not in (0, 1, 2):
        found.append(f"full disk: exit code {code}: {place.said[-300:]}")
    return code == 2 and "Error: " in place.said, found


def two_at_once(place: Place) -> list[str]:
    """Start the command twice; both work on one cache, and write to one name."""
    children = [place.start(), place.start()]
    found = []
    for child in children:
        code = place.end(*child)
        if code not in (0, 1) and "Error: " not in place.said:
            found.append(f"two at once: exit code {code}: {place.said[-300:]}")
    return found + place.faults()


def damaged_cache(place: Place, random: Random) -> list[str]:
    """Damage every file of the cache, each in its way, and run the command."""
    for path in sorted((place.folder / "home").rglob("*")):
        if path.is_file():
            content = bytearray(path.read_bytes())
            kind = random.randrange(4)
            if kind == 0:
                content = content[: len(content) // 2]
            elif kind == 1:
                content = bytearray(random.randbytes(64))
            elif kind == 2:
                content.clear()
            elif content:
                content[random.randrange(len(content))] ^= 255
            path.write_bytes(content)
    return [f"damaged cache: {fault}" for fault in in_peace(place)]


def clock_back(place: Place) -> list[str]:
    """Let every file be from the future, as after the clock was set back; run the command."""
    future = time.time() + _YEARS
    for path in sorted(place.folder.rglob("*")):
        if path.is_file():
            os.utime(path, (future, future))
    return [f"clock back: {fault}" for fault in in_peace(place)]


def other_weights(one: Path, other: Path) -> list[str]:
    """Say where two .keras files have different weights."""
    mine, theirs = _weights(one), _weights(other)
    if mine.keys() != theirs.keys():
        return ["other weights after --resume: not the same layers"]
    apart = [float(np.max(np.abs(mine[name] - theirs[name]), initial=0)) for name in mine]
    if max(apart) > _WEIGHTS:
        return [f"other weights after --resume: {max(apart):.2g} apart"]
    return []


def _weights(path: Path) -> dict[str, np.ndarray]:
    import h5py

    found = {}

    def add(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset) and np.issubdtype(item.dtype, np.floating):
            found[name] = item[()]

    with zipfile.ZipFile(path) as archive:
        content = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(content, "r") as file:
        file.visititems(add)
    return found
