"""LiteRT in the runner."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import litert_profiler
from .loaded import Engine, LoadedFile, OperatorRuns, RunnerRuntime

if TYPE_CHECKING:
    from .loaded import Array
    from .operators import OperatorMedian

_NO_XNNPACK = "XNNPACK took none of its operators over: LiteRT's own kernels were timed"


def delegated(interpreter: Any) -> bool | None:
    """Tell whether XNNPACK took operators over; None where LiteRT does not say."""
    details = getattr(interpreter, "_get_ops_details", None)
    if details is None:
        return None
    return any(op["op_name"] == "DELEGATE" for op in details())


def _open(litert: Any, path: str, threads: int) -> LoadedFile:
    interpreter = litert.Interpreter(model_path=path, num_threads=threads)
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    fixed = all(-1 not in details.get("shape_signature", ()) for details in inputs)
    if fixed:  # free sizes are stored as 1, which a model may be unable to run
        interpreter.allocate_tensors()

    def prepare(arrays: Sequence[Array]) -> Engine:
        shapes = [tuple(details["shape"]) for details in inputs]
        if not fixed or [array.shape for array in arrays] != shapes:
            for i, array in enumerate(arrays):
                interpreter.resize_tensor_input(inputs[i]["index"], array.shape)
            interpreter.allocate_tensors()
        for i, array in enumerate(arrays):
            interpreter.set_tensor(inputs[i]["index"], array)
        indices = [details["index"] for details in outputs]
        return Engine(interpreter.invoke, lambda: [interpreter.get_tensor(i) for i in indices])

    return LoadedFile(prepare, lambda: [_NO_XNNPACK] if delegated(interpreter) is False else [])


def _operators(litert: Any, asked: OperatorRuns) -> list[OperatorMedian]:
    """By LiteRT's profiler, which wants every size fixed in the file."""
    fixed = Path(asked.folder, "fixed.tflite")
    fixed.write_bytes(_with_fixed_sizes(Path(asked.path).read_bytes(), asked.arrays))
    inputs = dict(zip(asked.names, asked.arrays))
    return litert_profiler.measure(str(fixed), inputs, asked.threads, asked.runs)


def _with_fixed_sizes(file: bytes, arrays: Sequence[Array]) -> bytearray:
    """Return the file with the sizes that it leaves free set to those it stores.

    Raises:
        ValueError: If these are not the ones of the inputs.
    """
    schema = import_module("ai_edge_litert.schema_py_generated")
    content = bytearray(file)
    graph = schema.Model.GetRootAs(content).Subgraphs(0)
    for i, array in enumerate(arrays):
        tensor = graph.Tensors(graph.Inputs(i))
        if tensor.ShapeLength() and tuple(tensor.ShapeAsNumpy()) != array.shape:
            raise ValueError("LiteRT's profiler is used with the sizes that the file stores only")
    for i in range(graph.TensorsLength()):
        tensor = graph.Tensors(i)
        if tensor.ShapeSignatureLength():
            tensor.ShapeSignatureAsNumpy()[:] = tensor.ShapeAsNumpy()  # in place
    return content


RUNTIME = RunnerRuntime(
    title="LiteRT",
    modules=(
        ("ai_edge_litert.interpreter", ("ai-edge-litert", "ai-edge-litert-nightly")),
        ("tflite_runtime.interpreter", ("tflite-runtime", "tflite-runtime-nightly")),
        ("tensorflow.lite", ("tensorflow", "tensorflow-cpu", "tensorflow-aarch64")),
    ),
    open=_open,
    operators=_operators,
)
