"""ONNX Runtime in the runner."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .loaded import Engine, LoadedFile, OperatorRuns, RunnerRuntime
from .operators import parse_ort_profile

if TYPE_CHECKING:
    from .loaded import Array
    from .operators import OperatorMedian

PROVIDERS = ["CPUExecutionProvider"]
_WARMUP = 3


def _options(ort: Any, threads: int) -> Any:
    """Options of a session whose invocations are to be timed."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only
    # Idle workers would spin into the time of whatever runs next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def bound(session: Any, arrays: Sequence[Array]) -> Engine:
    """Bind inputs and outputs once.

    ``run`` converts its feed and its results each time, which was measured as 2 µs of the 22 µs of
    a small network.
    """
    binding = session.io_binding()
    for i, value in enumerate(session.get_inputs()):
        binding.bind_cpu_input(value.name, arrays[i])
    for value in session.get_outputs():
        binding.bind_output(value.name)
    return Engine(partial(session.run_with_iobinding, binding), binding.copy_outputs_to_cpu)


def _session(ort: Any, path: str, threads: int, profile: str = "") -> Any:
    options = _options(ort, threads)
    if profile:
        options.enable_profiling = True
        options.profile_file_prefix = profile
    session = ort.InferenceSession(path, options, providers=PROVIDERS)
    if session.get_providers() != PROVIDERS:
        raise RuntimeError(f"runs on {session.get_providers()}, not on {PROVIDERS}")
    return session


def _open(ort: Any, path: str, threads: int) -> LoadedFile:
    return LoadedFile(partial(bound, _session(ort, path, threads)))


def _operators(ort: Any, asked: OperatorRuns) -> list[OperatorMedian]:
    session = _session(ort, asked.path, asked.threads, str(Path(asked.folder, "operators")))
    run = bound(session, asked.arrays).run
    for _ in range(_WARMUP + asked.runs):
        run()
    profile = Path(session.end_profiling())
    try:
        return parse_ort_profile(profile.read_text(), _WARMUP)
    finally:
        profile.unlink()


RUNTIME = RunnerRuntime(
    title="ONNX Runtime",
    modules=(
        (
            "onnxruntime",
            ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino"),
        ),
    ),
    open=_open,
    operators=_operators,
)
