"""Kill commands at random moments and fill their disk: ``python tests/faults --kills 200``.

Prints a table: of each command how often it was killed, and what did not hold afterwards. A run
counts as resumed where the next one ended well; that of finetune goes on with --resume, and must
end at the weights of a run that nobody killed.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from random import Random

sys.path.append(str(Path(__file__).parents[1] / "support"))

import disturbances
import sound_files
from disturbed import COMMANDS, Command, Place

HEADS = (
    *("command", "killed", "ended before", "resumed", "lost", "half-written", "other faults"),
    *(
        "disk full",
        "of these refused in words",
        "two at once",
        "cache damaged",
        "files dated ahead",
    ),
)
TRIES = 3
"""Runs per wanted kill, at most: some end before their moment comes."""
TIMES = 2
"""How often two start at once, the cache is damaged and the files dated ahead, per command."""


def main() -> int:
    """Run it all; 1 if anything did not hold."""
    parser = argparse.ArgumentParser(prog="python tests/faults", description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="That hit, over all commands.")
    parser.add_argument("--full", type=int, default=40, help="Full disks, over all commands.")
    parser.add_argument("--commands", default=",".join(COMMANDS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("build/faults"))
    options = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    chosen = [COMMANDS[name] for name in options.commands.split(",")]
    sound = options.folder.resolve() / "sound"
    sound_files.make(sound, with_keras=any(command.needs for command in chosen))
    print(_row(HEADS), _row(["---"] * len(HEADS)), sep="\n", flush=True)
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
    """Disturb one command and print its row; the number of faults."""
    place.prepare()
    cold, faults = _timed(place)
    warm, more = _timed(place)
    faults += more
    reference = place.folder.with_name(f"{command.name}.reference")
    if command.name == "finetune" and not faults:
        shutil.copy(place.folder / command.outputs[0], reference)
    place.remember()
    killed = ended = resumed = told = 0
    for number in range(TRIES * kills):
        if killed == kills:
            break
        fresh = number % 2 == 0
        if fresh and command.name == "optimize":
            place.prepare()  # from the start, not only where everything is done
        elif fresh:
            place.forget()
        found = disturbances.killed(place, random, cold if fresh else min(cold, warm))
        if place.killed:
            killed += 1
            found += disturbances.in_peace(place)
            if command.name == "finetune" and not found:
                output = place.folder / command.outputs[0]
                found += disturbances.other_weights(reference, output)
            resumed += not found
        else:
            ended += 1
        faults += found
        place.remember()
    for _ in range(full):
        refused, found = disturbances.full(place, random)
        told += refused
        faults += found
    faults += disturbances.in_peace(place)
    for _ in range(TIMES):
        place.remember()
        faults += disturbances.two_at_once(place) + disturbances.damaged_cache(place, random)
        faults += disturbances.clock_back(place)
    kinds = Counter(_kind(fault) for fault in faults)
    counts = (killed, ended, resumed, kinds["lost"], kinds["half-written"], kinds["other"])
    print(_row([command.name, *counts, full, told, *[TIMES] * 3]), flush=True)
    for fault, times in Counter(faults).items():
        print(f"{command.name}: {times}×: {fault}", file=sys.stderr, flush=True)
    return len(faults)


def _timed(place: Place) -> tuple[float, list[str]]:
    """Run the command in peace: seconds that it took, and what did not hold."""
    started = time.monotonic()
    faults = disturbances.in_peace(place)
    return time.monotonic() - started, faults


def _kind(fault: str) -> str:
    """Name the column of a fault."""
    if fault.endswith((" is lost", " is another one", " is missing")):
        return "lost"
    return "half-written" if " is half-written: " in fault else "other"


def _row(cells: Iterable[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    sys.exit(main())
