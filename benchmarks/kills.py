"""Fine-tuning that is killed at random moments and resumed: does it end at the same weights?

python benchmarks/kills.py 20
"""

from __future__ import annotations

import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import machine

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))


def main(kills: int, seed: int = 0) -> int:
    import keras  # noqa: F401  imported once: each child begins with it
    from killed_training import SETTINGS, run

    print(f"Machine: {machine()}")
    with tempfile.TemporaryDirectory() as folder:
        whole, resumed, state = (Path(folder) / name for name in ("whole", "resumed", "state"))
        started = time.perf_counter()
        ended(child(lambda: save(whole, run(None))))
        seconds = time.perf_counter() - started
        print(f"uninterrupted: {SETTINGS.epochs} epochs in {seconds:.1f} s", flush=True)
        done, attempts, rng = 0, 0, random.Random(seed)
        while done < kills:
            attempts += 1
            number = child(lambda: save(resumed, run(state)))
            time.sleep(rng.uniform(0, 1.2 * seconds))
            os.kill(number, signal.SIGKILL)
            if ended(number) == -signal.SIGKILL:
                done += 1
                print(f"kill {done}: {told(state)}", flush=True)
            else:  # it was faster: another one begins
                print(f"ended before it was killed: weights differ by {gap(whole, resumed):.2g}")
                state.unlink()
        code = ended(child(lambda: save(resumed, run(state))))
        left = sorted(path.name for path in Path(folder).iterdir())
        largest = gap(whole, resumed)
        print(
            f"{kills} kills in {attempts} runs; the last ended with code {code}; weights differ "
            f"by at most {largest:.2g}; left behind: {', '.join(left)}"
        )
    return 0 if code == 0 and largest <= 2e-5 and left == ["resumed", "state", "whole"] else 1


def child(work: Callable[[], None]) -> int:
    """Do something in a forked process, and return its number."""
    number = os.fork()
    if number:
        return number
    code = 1
    try:
        work()
        code = 0
    finally:
        os._exit(code)


def ended(number: int) -> int:
    """Wait for a child: its exit code, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])


def save(path: Path, tuned: Any) -> None:
    with path.open("wb") as file:
        np.savez(file, *tuned.model.get_weights())


def told(state: Path) -> str:
    """Read a state whole, and tell where it is."""
    import msgspec

    if not state.exists():
        return "no state yet"
    with np.load(state, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    header = msgspec.json.decode(arrays["header"].tobytes())
    return f"{len(header['history']) - 1} epochs and {header['underway']['steps']} steps are kept"


def gap(one: Path, other: Path) -> float:
    """Return the largest difference between two files of weights."""
    with np.load(one) as first, np.load(other) as second:
        return max(float(np.abs(first[name] - second[name]).max()) for name in first.files)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 20))
