"""Running .onnx files with ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from dsconvert.base.errors import InputError, require
from dsconvert.base.predictor import Array

from .runtime import Prepared, Runtime
from .tensor_info import TensorInfo

_PROVIDERS = ["CPUExecutionProvider"]


class OnnxRuntime(Runtime):
    """An .onnx file in ONNX Runtime on the CPU.

    Timing binds inputs and outputs once: ``run`` converts its feed and its results each time,
    which was measured as 2 µs of the 22 µs of a small network.
    """

    name = "ONNX Runtime"
    package = "onnxruntime"
    module = "onnxruntime"

    def _load(
        self, path: Path, threads: int
    ) -> tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]]:
        ort = require(self.module, "onnx", "to run .onnx files")
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors only
        # Idle workers would spin into the time of whatever runs next.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        self._adjust(options)
        self._session = ort.InferenceSession(str(path), options, providers=_PROVIDERS)
        if self._session.get_providers() != _PROVIDERS:
            raise InputError(
                f"{path}: {self.name} runs it with {', '.join(self._session.get_providers())}, "
                f"asked for was {', '.join(_PROVIDERS)}."
            )
        return (
            tuple(_onnx_info(path, argument) for argument in self._session.get_inputs()),
            tuple(_onnx_info(path, argument) for argument in self._session.get_outputs()),
        )

    def _adjust(self, options: Any) -> None:
        """What else the session is made with."""

    def _run(self, arrays: Sequence[Array]) -> Sequence[Array]:
        feed = dict(zip(self.input_names, arrays, strict=True))
        outputs: Sequence[Array] = self._session.run(self.output_names, feed)
        return outputs

    def _prepare(self, arrays: Sequence[Array]) -> Prepared:
        binding = self._session.io_binding()
        for name, array in zip(self.input_names, arrays, strict=True):
            binding.bind_cpu_input(name, array)
        for name in self.output_names:
            binding.bind_output(name)
        return Prepared(
            partial(self._session.run_with_iobinding, binding),
            lambda: self._decoded(binding.copy_outputs_to_cpu()),
        )


_ONNX_TYPES = {"float": "float32", "double": "float64"} | {
    name: name
    for name in ("float16", "bool", *(f"{u}int{b}" for u in ("", "u") for b in (8, 16, 32, 64)))
}


def _onnx_info(path: Path, argument: Any) -> TensorInfo:
    """Describe an input or output of an .onnx file."""
    dtype = _ONNX_TYPES.get(argument.type.removeprefix("tensor(").removesuffix(")"))
    if dtype is None:
        raise InputError(
            f"{path}: {argument.name} is a {argument.type}; only numeric tensors can be run."
        )
    shape = tuple(size if isinstance(size, int) else None for size in argument.shape)
    return TensorInfo(name=argument.name, shape=shape, dtype=dtype)
