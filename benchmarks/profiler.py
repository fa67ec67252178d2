"""Whether `dsconvert profile` says what the ecosystem's own tools say, what it adds, how it starts.

Each figure is a median over rounds in which the tools take turns, every time in a fresh process,
on one thread.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from common import RESNET8, VGG6, arguments, machine, table

XCEPTION = "keras/fer2013_mini_xception_102.hdf5"
ROUNDS = 7
RUNS, WARMUP = 500, 20

# Its median is kept before the tool rounds it to 10 µs.
LITERT_BENCHMARK = f"""
import statistics, sys
from ai_edge_litert.tools import benchmark_litert_model as tool
median, kept = statistics.median, []
statistics.median = lambda times: kept.append(median(times)) or kept[-1]
sys.argv = ["litert-benchmark", "--model", sys.argv[1],
            "--num_runs={RUNS}", "--warmup_runs={WARMUP}", "--num_threads=1"]
tool.main()
print("p50", kept[-1])
"""
ORT_LOOP = f"""
import statistics, sys, time
import numpy as np
import onnxruntime as ort
options = ort.SessionOptions()
options.intra_op_num_threads = 1
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
(tensor,) = session.get_inputs()
shape = [size if isinstance(size, int) else 1 for size in tensor.shape]
feed = {{tensor.name: np.random.default_rng(0).normal(size=shape).astype(np.float32)}}
times = []
for _ in range({WARMUP} + {RUNS}):
    start = time.perf_counter()
    session.run(None, feed)
    times.append(1e3 * (time.perf_counter() - start))
print("p50", statistics.median(times[{WARMUP}:]))
"""
BARE_AND_PROFILED = f"""
import statistics, sys, time
import numpy as np
from ai_edge_litert.interpreter import Interpreter
from dsconvert.deploy.profiling.profile import profile
path, rounds = sys.argv[1], int(sys.argv[2])
interpreter = Interpreter(path, num_threads=1)
interpreter.allocate_tensors()
(tensor,) = interpreter.get_input_details()
values = np.random.default_rng(0).normal(size=tensor["shape"]).astype(np.float32)
interpreter.set_tensor(tensor["index"], values)
clock, invoke = time.perf_counter_ns, interpreter.invoke
for _ in range(rounds):
    times = []
    for _ in range({WARMUP} + {RUNS}):
        start = clock()
        invoke()
        times.append((clock() - start) / 1e6)
    (one,) = profile([path], inputs=[values], runs={RUNS}, min_seconds=0, warmup={WARMUP})
    print("p50", statistics.median(times[{WARMUP}:]), one.latency.p50_ms)
"""


def main() -> None:
    chosen = arguments(__doc__, "agreement", "overhead", "start")
    print(f"Machine: {machine()}; {ROUNDS} rounds of {RUNS} runs, one thread")
    with tempfile.TemporaryDirectory() as folder:
        files = export_all(chosen.models, Path(folder))
        if "agreement" in chosen.only:
            agreement(files)
        if "overhead" in chosen.only:
            overhead(files)
        if "start" in chosen.only:
            start(files)


def export_all(models: Path, folder: Path) -> dict[str, list[Path]]:
    """Return the three models in both formats."""
    from dsconvert.deploy.exporting.export import export
    from dsconvert.models.loading import load

    files: dict[str, list[Path]] = {".tflite": [], ".onnx": []}
    for name in (RESNET8, XCEPTION, VGG6):
        model = load(models / name).model
        for suffix, found in files.items():
            path = folder / f"{Path(name).stem}{suffix}"
            export(model, path)
            found.append(path)
    return files


def agreement(files: dict[str, list[Path]]) -> None:
    """The p50 of `dsconvert profile` beside that of the runtime's own tool or a plain loop."""
    rows = []
    for suffix, script, tool in (
        (".tflite", LITERT_BENCHMARK, "litert-benchmark"),
        (".onnx", ORT_LOOP, "a loop of session.run"),
    ):
        for path in files[suffix]:
            theirs, ours = in_turns(lambda p=path, s=script: ask(s, p)[0], lambda p=path: asked(p))
            ratios = [b / a for a, b in zip(theirs, ours, strict=True)]
            middle = [statistics.median(times) for times in (theirs, ours)]
            spread = f"{percent(min(ratios))} … {percent(max(ratios))}"
            difference = percent(middle[1] / middle[0])
            rows.append((path.name, tool, *map(ms, middle), difference, spread))
    columns = ("file", "tool", "its p50", "profile's p50", "difference", "by round")
    table("The same p50 as the runtimes' own tools", columns, rows)


def overhead(files: dict[str, list[Path]]) -> None:
    """Return what the turns of profile add to a bare loop around invoke, in one process."""
    rows = []
    for path in files[".tflite"]:
        pairs = [tuple(map(float, line)) for line in lines(BARE_AND_PROFILED, path, ROUNDS)]
        bare, profiled = (statistics.median(times) for times in zip(*pairs, strict=True))
        rows.append((path.name, ms(bare), ms(profiled), percent(profiled / bare)))
    columns = ("file", "bare loop's p50", "profile's p50", "difference")
    table("What profile adds to an invocation", columns, rows)


def start(files: dict[str, list[Path]]) -> None:
    """Time what a command does beside timing: imports, loading, the worker process."""
    rows = []
    for suffix, found in files.items():
        command = [sys.executable, "-c", "from dsconvert.cli import main; main()"]
        words = ["profile", str(found[0]), "--runs=1", "--warmup=0", "--min-seconds=0", "--quiet"]
        whole = [wall([*command, *words]) for _ in range(ROUNDS)]
        bare = [wall([sys.executable, "-c", "import numpy"]) for _ in range(ROUNDS)]
        rows.append(
            (suffix, f"{statistics.median(whole):.2f} s", f"{statistics.median(bare):.2f} s")
        )
    table("From the command to its result", ("file", "one run", "Python and numpy alone"), rows)


def in_turns(*tools: Callable[[], float]) -> list[list[float]]:
    """Return each tool's figures, one per round; every other round in the other order."""
    found: list[list[float]] = [[] for _ in tools]
    for number in range(ROUNDS):
        order = range(len(tools))
        for i in order if number % 2 == 0 else reversed(order):
            found[i].append(tools[i]())
    return found


def asked(path: Path) -> float:
    """Return the p50 that the command prints."""
    code = "from dsconvert.cli import main; main()"
    words = ["profile", str(path), f"--runs={RUNS}", f"--warmup={WARMUP}", "--min-seconds=0"]
    done = run([sys.executable, "-c", code, *words, "--json", "--quiet"])
    return float(json.loads(done)[0]["latency"]["p50_ms"])


def ask(script: str, *words: object) -> list[float]:
    """Return the figures in the one line that a script prints."""
    (found,) = lines(script, *words)
    return list(map(float, found))


def lines(script: str, *words: object) -> list[list[str]]:
    """Return what a script prints after "p50", line by line."""
    done = run([sys.executable, "-c", script, *map(str, words)])
    return [line.split()[1:] for line in done.splitlines() if line.startswith("p50 ")]


def run(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def wall(command: list[str]) -> float:
    """Seconds that a command takes."""
    begin = time.perf_counter()
    run(command)
    return time.perf_counter() - begin


def ms(value: float) -> str:
    return f"{value:.3g} ms"


def percent(ratio: float) -> str:
    return f"{100 * (ratio - 1):+.1f} %"


if __name__ == "__main__":
    main()
