"""Kill commands at random moments and fill their disk: ``python tests/faults --kills 200``.

Prints a table: of each command how often it was killed, how often its disk was full, and what did
not hold afterwards.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
from pathlib import Path
from random import Random

sys.path.append(str(Path(__file__).parents[1] / "support"))

import disturbed
import sound_files
from disturbed import COMMANDS, Command, Place


def main() -> int:
    """Run it all; 1 if anything did not hold."""
    parser = argparse.ArgumentParser(prog="python tests/faults", description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="Over all commands.")
    parser.add_argument("--full", type=int, default=40, help="Full disks, over all commands.")
    parser.add_argument("--commands", default=",".join(COMMANDS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("build/faults"))
    options = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    chosen = [COMMANDS[name] for name in options.commands.split(",")]
    sound = options.folder.resolve() / "sound"
    sound_files.make(sound, with_keras=any(command.needs for command in chosen))
    print(f"{'command':<10}{'kills':>7}{'ended':>7}{'full':>7}{'said':>7}{'faults':>8}", flush=True)
    share = (len(chosen) - 1 + options.kills) // len(chosen)
    full = (len(chosen) - 1 + options.full) // len(chosen)
    wrong = 0
    for command in sorted(chosen, key=lambda one: bool(one.needs)):
        for module in ("onnx", "onnxruntime", *command.needs):
            importlib.import_module(module)
        place = Place(command, sound, options.folder.resolve() / command.name)
        found = _one(command, place, Random(f"{options.seed} {command.name}"), share, full)
        wrong += found
    return int(wrong > 0)


def _one(command: Command, place: Place, random: Random, kills: int, full: int) -> int:
    """Disturb one command; the number of faults."""
    place.prepare()
    started = time.monotonic()
    faults = disturbed.recover(place)
    seconds = time.monotonic() - started
    place.remember()
    killed = ended = 0
    for number in range(kills):
        if command.name == "optimize" and number % 8 == 0:
            place.prepare()  # from the start, not only where everything is done
        found = disturbed.disturb(place, random, seconds)
        killed += place.killed
        ended += not place.killed
        faults += found
        place.remember()
    faults += disturbed.recover(place)
    place.remember()
    told = 0
    for _ in range(full):
        code = place.run(room=random.choice((0, 1, 100, 1000, 4096, 20_000)))
        found = place.faults()
        told += code == 2 and "Error: " in place.said
        if code not in (0, 1, 2):
            found.append(f"full disk: exit code {code}")
        faults += found
    faults += disturbed.recover(place)
    cells = (killed, ended, full, told, len(faults))
    print(f"{command.name:<10}" + "".join(f"{cell:>7}" for cell in cells[:-1]) + f"{cells[-1]:>8}")
    for fault, times in _counted(faults):
        print(f"    {times}×: {fault}", flush=True)
    return len(faults)


def _counted(faults: list[str]) -> list[tuple[str, int]]:
    return [(fault, faults.count(fault)) for fault in dict.fromkeys(faults)]


if __name__ == "__main__":
    sys.exit(main())
