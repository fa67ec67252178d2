"""Loading time, first run and peak memory of one file, in a process of its own.

``python -m dsconvert.deploy.devices.isolated FILE INPUTS.npz THREADS`` prints them as JSON.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import msgspec
import numpy as np
import psutil

from dsconvert.base.child_process import run_python
from dsconvert.base.predictor import Array

from ..runner.machine import peak_bytes, resident_bytes
from ..runtimes.registry import open_runtime, runtime_for
from .records import Startup

_MIB = 2**20


def measure_isolated(path: Path, inputs: Sequence[Array], threads: int) -> Startup | str:
    """Measure a file in a fresh process.

    Args:
        path: The file.
        inputs: Its inputs for one invocation.
        threads: For the runtime.

    Returns:
        The figures, or why there are none: a file that brings its process down does not bring
        ours down.
    """
    with tempfile.TemporaryDirectory() as folder:
        arrays = Path(folder, "inputs.npz")
        np.savez(arrays, *inputs)
        done = run_python(["-m", __name__, str(path), str(arrays), str(threads)])
    if done.failure:
        return done.failure
    return msgspec.json.decode(done.stdout, type=Startup)


def measure(path: Path, inputs: Sequence[Array], threads: int) -> Startup:
    """Measure a file in this process, which should be fresh."""
    import_module(runtime_for(path).module)  # importing is not loading
    before = resident_bytes() or psutil.Process().memory_info().rss
    start = time.perf_counter_ns()
    runtime = open_runtime(path, threads=threads)
    loaded = time.perf_counter_ns()
    prepared = runtime.prepare(inputs)
    ready = time.perf_counter_ns()
    prepared.run()
    done = time.perf_counter_ns()
    peak = _peak_bytes()
    return Startup(
        load_ms=(loaded - start) / 1e6,
        first_run_ms=(done - ready) / 1e6,
        peak_memory_mib=peak / _MIB,
        memory_increase_mib=max(0, peak - before) / _MIB,
    )


def _peak_bytes() -> int:
    """The peak resident memory of this process."""
    peak = peak_bytes()
    if peak is not None:
        return peak
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes, on macOS


def _main() -> None:
    path, arrays, threads = sys.argv[1:]
    with np.load(arrays) as inputs:
        result = measure(Path(path), [inputs[name] for name in inputs.files], int(threads))
    sys.stdout.buffer.write(msgspec.json.encode(result))


if __name__ == "__main__":
    _main()
