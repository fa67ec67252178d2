"""OpenVINO in the runner."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from .loaded import Engine, LoadedFile, OperatorRuns, RunnerRuntime
from .operators import OperatorMedian, median_ms

if TYPE_CHECKING:
    from .loaded import Array

_WARMUP = 3
_PLACES = ("Exception from ", "Check '", "FrontEnd API failed")
"""Lines that say where in OpenVINO's sources something went wrong, not what."""
_FUSED = "/WithoutBiases"
"""What OpenVINO puts behind the name of a convolution whose bias it keeps apart."""


def compiled(ov: Any, path: str, threads: int, *, profiled: bool = False) -> Any:
    """Compile a file for this machine's CPU.

    On CPUs with AMX, OpenVINO computes in bfloat16 unless it is told otherwise, which was measured
    as 0.018 of a probability on ResNet8, and float32 as 1e-6.
    """
    config = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,  # the cores are those that this process was given
        "PERF_COUNT": profiled,
    }
    with _said_in_words():
        return ov.Core().compile_model(path, "CPU", config)


@contextmanager
def _said_in_words() -> Iterator[None]:
    """Put the cause of an error first, in one line."""
    try:
        yield
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        words = [line for line in lines if line and not line.startswith(_PLACES)]
        raise RuntimeError(" ".join(words or lines)) from error


def bound(ov: Any, request: Any, arrays: Sequence[Array]) -> Engine:
    """Put arrays into a request's inputs, without copying them."""
    with _said_in_words():
        for i, array in enumerate(arrays):
            request.set_input_tensor(i, ov.Tensor(array, shared_memory=True))
    outputs = range(len(request.model_outputs))
    return Engine(
        partial(_infer, request, arrays),
        lambda: [request.get_output_tensor(i).data.copy() for i in outputs],
    )


def _infer(request: Any, arrays: Sequence[Array]) -> None:
    """Invoke once; the request reads the arrays, which it does not keep alive."""
    del arrays
    request.infer(share_outputs=True)


def _open(ov: Any, path: str, threads: int) -> LoadedFile:
    return LoadedFile(partial(bound, ov, compiled(ov, path, threads).create_infer_request()))


def _operators(ov: Any, asked: OperatorRuns) -> list[OperatorMedian]:
    request = compiled(ov, asked.path, asked.threads, profiled=True).create_infer_request()
    run = bound(ov, request, asked.arrays).run
    seen: list[list[int]] = []
    for number in range(_WARMUP + asked.runs):
        run()
        nodes = request.get_profiling_info()
        if number >= _WARMUP:
            seen.append([node.real_time.microseconds for node in nodes])
    if len({len(durations) for durations in seen}) > 1:
        raise ValueError("OpenVINO does not report the same operators in every run")
    # A node of no whole microsecond reads as one that did not run.
    ran = [(node, times) for node, times in zip(nodes, zip(*seen)) if any(times)]
    if not ran:
        raise ValueError("no operator takes a microsecond, which OpenVINO counts in")
    return [OperatorMedian(_name(n.node_name), n.node_type, median_ms(t)) for n, t in ran]


def _name(name: str) -> str:
    """Return the name that the file gives an operator."""
    return name[: -len(_FUSED)] if name.endswith(_FUSED) else name


RUNTIME = RunnerRuntime(
    title="OpenVINO",
    modules=(("openvino", ("openvino",)),),
    open=_open,
    operators=_operators,
)
