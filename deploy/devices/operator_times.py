"""The times of a file's operators on this machine, in runs of their own."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dsconvert.base.child_process import run_python

from ..runner import litert_profiler
from ..runner.operators import OperatorMedian, parse_ort_profile
from ..runtimes.onnxruntime import OnnxRuntime
from ..runtimes.runtime import encode, first_line
from .records import OperatorTime

if TYPE_CHECKING:
    from .device import Case

RUNS = 200
_FEWEST, _SECONDS = 10, 10.0
"""Of a large file, as many as take so long, at least so many."""
_WARMUP = 3
_PATIENCE = 10
"""How many times as long as planned LiteRT's profiler may take, and a minute to load the file."""


def time_operators(
    case: Case, threads: int, invocation_ms: float
) -> tuple[OperatorTime, ...] | str:
    """Time each operator; the profilers slow the invocations, so no latency comes from here.

    Args:
        case: The file and what it runs on.
        threads: Of the runtime.
        invocation_ms: About how long one takes.

    Returns:
        The operators in the order in which they run, as the runtime calls them, or why not.
    """
    runs = max(_FEWEST, min(RUNS, int(1e3 * _SECONDS / invocation_ms)))
    most = 60 + _PATIENCE * (runs + litert_profiler.WARMUP) * invocation_ms / 1e3
    try:
        if case.runtime == "litert":
            found = _by_litert(case, threads, runs, most)
        else:
            found = _by_ort(case, threads, runs)
    except Exception as error:  # the runtimes raise anything
        return f"unavailable: {first_line(error)}"
    total = sum(one.p50_ms for one in found)
    return tuple(
        OperatorTime(name=name, type=type_, p50_ms=p50, share=p50 / total)
        for name, type_, p50 in found
    )


class _Profiling(OnnxRuntime):
    """An .onnx file in a session that writes a profile."""

    def __init__(self, path: Path, threads: int, prefix: Path) -> None:
        self._prefix = prefix
        super().__init__(path, threads)

    def _adjust(self, options: object) -> None:
        options.enable_profiling = True  # type: ignore[attr-defined]
        options.profile_file_prefix = str(self._prefix)  # type: ignore[attr-defined]

    def end(self) -> str:
        """Write the profile and give what it says."""
        return Path(self._session.end_profiling()).read_text()


def _by_ort(case: Case, threads: int, runs: int) -> list[OperatorMedian]:
    with tempfile.TemporaryDirectory() as folder:
        runtime = _Profiling(case.path, threads, Path(folder, "profile"))
        run = runtime.prepare(case.inputs).run
        for _ in range(_WARMUP + runs):
            run()
        return parse_ort_profile(runtime.end(), _WARMUP)


def _by_litert(case: Case, threads: int, runs: int, most: float) -> list[OperatorMedian]:
    """In a process of its own, which LiteRT's profiler may bring down."""
    with tempfile.TemporaryDirectory() as folder:
        model, arrays = Path(folder, "model.tflite"), Path(folder, "inputs.npz")
        model.write_bytes(_fixed(case))
        stored = [encode(a, info) for a, info in zip(case.inputs, case.input_infos, strict=True)]
        names = json.dumps([info.name for info in case.input_infos])
        given = {f"input{i}": array for i, array in enumerate(stored)}
        np.savez(arrays, names=names, **given)  # type: ignore[arg-type]
        arguments = [str(model), str(arrays), str(threads), str(runs)]
        done = run_python(["-m", litert_profiler.__name__, *arguments], timeout=most)
    if done.failure:
        raise ValueError(f"LiteRT's profiler: {done.failure}")
    said = json.loads(done.stdout)
    if "unavailable" in said:
        raise ValueError(said["unavailable"])
    return [OperatorMedian(*one) for one in said["operators"]]


def _fixed(case: Case) -> bytearray:
    """The file with the sizes that it leaves free set to those it stores.

    Raises:
        ValueError: If these are not the ones of the inputs.
    """
    from ai_edge_litert import schema_py_generated as schema

    content = bytearray(case.path.read_bytes())
    graph = schema.Model.GetRootAs(content).Subgraphs(0)
    for i, array in enumerate(case.inputs):
        tensor = graph.Tensors(graph.Inputs(i))
        if tensor.ShapeLength() and tuple(tensor.ShapeAsNumpy()) != array.shape:
            raise ValueError("LiteRT's profiler is used with the sizes that the file stores only")
    for i in range(graph.TensorsLength()):
        tensor = graph.Tensors(i)
        if tensor.ShapeSignatureLength():
            tensor.ShapeSignatureAsNumpy()[:] = tensor.ShapeAsNumpy()  # in place
    return content
