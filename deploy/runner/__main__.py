"""Measures files on the machine it is copied to.

``python3 runner.pyz describe`` prints what the machine is and has, as JSON;
``python3 runner.pyz measure FOLDER [--attached]`` does the job in FOLDER, see `job`, and prints a
line per step. When it is attached, a line on its standard input makes it stop; when that ends,
nobody waits for the report any more: it stops and removes FOLDER.

Exit codes: 0, the report is complete; 1, an error that is printed; 3, nobody waits; 4, no space is
left; 5, the job is refused, for the reason printed; 6, it was stopped.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TextIO

from . import engines, machine
from .child import HungUp, Stopped
from .emulation import is_emulated
from .job import RunnerRefused, read_job
from .measuring import measure

HUNG_UP, FULL, REFUSED, STOPPED = 3, 4, 5, 6


def describe() -> None:
    """Print the fields of a `DeviceInfo`, and what Python there is."""
    found = {runtime: engines.installed(runtime) for runtime in engines.RUNTIMES}
    said = {
        **machine.describe(),
        "runtimes": {runtime: one[1] for runtime, one in found.items() if one},
        "emulated": is_emulated(),
        "numpy": find_spec("numpy") is not None,
        "python": sys.executable,
    }
    _say(json.dumps(said))


def _say(line: str, stream: TextIO | None = None) -> None:
    """Print at once."""
    (stream or sys.stdout).write(f"{line}\n")
    (stream or sys.stdout).flush()


def run(folder: Path, attached: bool) -> int:
    """Do a job; give the exit code."""
    for name in ("SIGTERM", "SIGHUP"):  # end as after Ctrl-C: the child is ended too
        if hasattr(signal, name):  # Windows has no SIGHUP
            signal.signal(getattr(signal, name), signal.default_int_handler)
    try:
        measure(read_job(folder), attached, lambda: _say("step"))
    except (HungUp, BrokenPipeError):  # nobody reads any more, and nobody else removes the folder
        shutil.rmtree(str(folder), ignore_errors=True)
        return HUNG_UP
    except (Stopped, KeyboardInterrupt):
        return STOPPED
    except RunnerRefused as refused:
        _say(str(refused), sys.stderr)
        return REFUSED
    except OSError as error:
        _say(str(error), sys.stderr)
        return FULL if error.errno == errno.ENOSPC else 1
    return 0


def main(arguments: Sequence[str]) -> int:
    """Do what the command line says; give the exit code."""
    if list(arguments) == ["describe"]:
        describe()
        return 0
    if len(arguments) in (2, 3) and arguments[0] == "measure":
        folder = Path(arguments[1])
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        os.environ["TMPDIR"] = str(folder)  # onnxruntime leaves a file in it
        return run(folder, "--attached" in arguments[2:])
    sys.exit(__doc__)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
