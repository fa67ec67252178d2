"""A benchmark_model that is none: it reads the flags and prints what the real ones print.

With an input file and ``--output_filepath`` it really runs the model, by LiteRT, and writes what
the real one writes. Its times are made up: 1 µs for each byte of the file, and a little more in
each process. What is wrong with it stands in FAKE_TROUBLE.
"""

# ruff: noqa: T201

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

FLAGS = [
    *("graph", "num_threads", "num_runs", "min_secs", "max_secs", "warmup_runs", "warmup_min_secs"),
    *("enable_op_profiling", "report_peak_memory_footprint"),
]
INPUT_FLAGS = ["input_layer", "input_layer_shape", "input_layer_value_files"]
KNOWN = {
    "old": FLAGS + INPUT_FLAGS,
    "new": [*FLAGS, *INPUT_FLAGS, "output_filepath"],
    "litert": FLAGS,
}
TABLE = """\
INFO: Operator-wise Profiling Info for Regular Benchmark Runs:
============================== Run Order ==============================
\t[node type]\t[first]\t[avg ms]\t[%]\t[cdf%]\t[mem KB]\t[times called]\t[Name]
\tCONV_2D\t0.300\t0.300\t75.000%\t75.000%\t0.000\t1\t[stem]:0
\tSOFTMAX\t0.100\t0.100\t25.000%\t100.000%\t0.000\t1\t[scores]:1

Number of nodes executed: 2
"""


def main(words: list[str]) -> int:
    trouble = json.loads(os.environ["FAKE_TROUBLE"])
    kind = os.environ["FAKE_OUTPUT"]
    old = kind == "old"
    flags = dict(word.removeprefix("--").split("=", 1) for word in words if "=" in word)
    if "cannot link" in trouble:
        print('CANNOT LINK EXECUTABLE "benchmark_model": library "libc++_shared.so" not found')
        return 1
    if "--help" in words:
        print("usage: benchmark_model\nFlags:\n\t--num_runs=50\tint32\toptional\texpected runs")
        return 1
    graph = Path(flags["graph"])
    with Path(os.environ["FAKE_PHONE"], "order").open("a") as file:
        file.write(f"{graph.stem}\n")
    prefix = "" if old else "INFO: "
    unknown = [name for name in flags if name not in KNOWN[kind]]
    if unknown:
        ignored = " ".join(f"--{name}={flags[name]}" for name in unknown)
        print(f"{'' if old else 'WARN: '}Unconsumed cmdline flags: {ignored}")
    if "hangs" in trouble:
        time.sleep(60)
    if "refuses inputs" in trouble and "input_layer" in flags:
        print("ERROR: Input tensor #0 should have 2 dimensions!\nERROR: Benchmarking failed.")
        return 1
    if "bad model" in trouble or graph.read_bytes()[4:8] != b"TFL3":
        print(f"ERROR: Failed to load model {graph}\nERROR: Benchmarking failed.")
        return 1
    if f"crashes on {graph.stem}" in trouble:
        print(f"{prefix}Loaded model {graph}", flush=True)
        os.kill(os.getpid(), 11)
    _print(prefix, old, graph, flags)
    if "enable_op_profiling" in flags:
        print(TABLE, end="")
    if "output_filepath" in flags and kind == "new":
        _outputs(graph, flags, Path(flags["output_filepath"]))
    return 0


def _print(prefix: str, old: bool, graph: Path, flags: dict[str, str]) -> None:
    order = Path(os.environ["FAKE_PHONE"], "order").read_text().split()
    us = graph.stat().st_size + order.count(graph.stem)
    runs, warmup = int(flags["num_runs"]), int(flags["warmup_runs"])
    tail = "" if old else f" p5={us - 1} median={us} p95={us + 9}"
    print(f"{prefix}Initialized session in 1.5ms.")
    print(f"{prefix}count={warmup} curr={us + 100}" + tail)
    numbers = f"first={us} curr={us} min={us - 2} max={us + 10} avg={us + 2} std=3"
    print(f"{prefix}count={runs} {numbers}{tail}\n")
    print(
        f"{prefix}Inference timings in us: Init: 1500, First inference: {us + 100}, "
        f"Warmup (avg): {us + 100}, Inference (avg): {us + 2}"
    )
    print(f"{prefix}Memory footprint delta from the start of the tool (MB): init=1.5 overall=2.5")
    if "report_peak_memory_footprint" in flags and not old:
        print(f"{prefix}Overall peak memory footprint (MB) via periodic monitoring: 9.25")


def _outputs(graph: Path, flags: dict[str, str], target: Path) -> None:
    import site

    site.main()  # started without, which is quicker

    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    model = Interpreter(str(graph))
    inputs = model.get_input_details()
    shapes = flags["input_layer_shape"].split(":")
    files = [pair.split(":")[1] for pair in flags["input_layer_value_files"].split(",")]
    for details, shape in zip(inputs, shapes, strict=True):
        model.resize_tensor_input(details["index"], [int(size) for size in shape.split(",")])
    model.allocate_tensors()
    for details, shape, path in zip(inputs, shapes, files, strict=True):
        values = np.fromfile(path, details["dtype"]).reshape([int(s) for s in shape.split(",")])
        model.set_tensor(details["index"], values)
    model.invoke()
    target.write_bytes(
        b"".join(model.get_tensor(one["index"]).tobytes() for one in model.get_output_details())
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
