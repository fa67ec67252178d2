"""The runtimes that a board has, used as `dsconvert.deploy.runtimes.litert` and `.ort` use them.

They are loaded by whatever package brings them there. Inputs and outputs are as the file stores
them: the machine that sends the job knows the scales.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module, metadata
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]

NAMES = {"litert": "LiteRT", "ort": "ONNX Runtime"}
_PACKAGES = {
    "litert": (
        ("ai_edge_litert.interpreter", ("ai-edge-litert", "ai-edge-litert-nightly")),
        ("tflite_runtime.interpreter", ("tflite-runtime", "tflite-runtime-nightly")),
        ("tensorflow.lite", ("tensorflow", "tensorflow-cpu", "tensorflow-aarch64")),
    ),
    "ort": (("onnxruntime", ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino")),),
}
"""Modules in the order in which they are tried, and the packages that may bring each."""
_PROVIDERS = ["CPUExecutionProvider"]


class Engine(NamedTuple):
    """A loaded file with its inputs in place.

    Attributes:
        run: Invokes once; nothing is converted or copied in.
        read: The outputs of the last run, as the file stores them.
    """

    run: Callable[[], Any]
    read: Callable[[], list[Array]]


class LoadedFile(NamedTuple):
    """A loaded file.

    Attributes:
        prepare: Takes one array per input, as the file stores them; to be called once.
        end_profile: Gives the path of the file with the operators' times, if one was asked for.
    """

    prepare: Callable[[Sequence[Array]], Engine]
    end_profile: Callable[[], str]


def installed(runtime: str) -> tuple[str, str] | None:
    """The module that brings a runtime, and its version; None if there is none. Loads nothing."""
    for module, packages in _PACKAGES[runtime]:
        if _is_there(module):
            versions = (_version(package) for package in packages)
            found = next(filter(None, versions), "of unknown version")
            usual = module == _PACKAGES[runtime][0][0]
            return module, found if usual else f"{found} ({module.partition('.')[0]})"
    return None


def load(runtime: str) -> Any:
    """Import a runtime, which is not loading a file.

    Raises:
        ImportError: If there is none, or it does not work here.
    """
    found = installed(runtime)
    if found is None:
        raise ImportError(f"no {NAMES[runtime]} is installed")
    return import_module(found[0])


def open_file(runtime: str, path: str, threads: int, profile: str = "") -> LoadedFile:
    """Load a file.

    Args:
        runtime: "litert" or "ort".
        path: The file.
        threads: For one invocation.
        profile: For ONNX Runtime: what the file with its operators' times shall start with.

    Raises:
        Exception: Whatever the runtime raises; RuntimeError if it runs elsewhere than asked.
    """
    module = load(runtime)
    return (
        _litert(module, path, threads)
        if runtime == "litert"
        else _ort(module, path, threads, profile)
    )


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):  # the package that it would be in is missing or broken
        return False


def _litert(litert: Any, path: str, threads: int) -> LoadedFile:
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

    return LoadedFile(prepare, str)


def _ort(ort: Any, path: str, threads: int, profile: str) -> LoadedFile:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only
    # Idle workers would spin into the time of whatever runs next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if profile:
        options.enable_profiling = True
        options.profile_file_prefix = profile
    session = ort.InferenceSession(path, options, providers=_PROVIDERS)
    if session.get_providers() != _PROVIDERS:
        raise RuntimeError(f"runs on {session.get_providers()}, not on {_PROVIDERS}")

    def prepare(arrays: Sequence[Array]) -> Engine:
        binding = session.io_binding()
        for i, value in enumerate(session.get_inputs()):
            binding.bind_cpu_input(value.name, arrays[i])
        for value in session.get_outputs():
            binding.bind_output(value.name)
        return Engine(partial(session.run_with_iobinding, binding), binding.copy_outputs_to_cpu)

    return LoadedFile(prepare, session.end_profiling)
