"""Running .onnx files with ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dsconvert.base.errors import InputError
from dsconvert.base.predictor import Array
from dsconvert.formats.onnx.session import PROVIDERS, session

from ..runner.ort_engine import bound
from .registry import ORT
from .session import Prepared, Session
from .tensor_info import TensorInfo


class OnnxRuntimeSession(Session):
    """An .onnx file in ONNX Runtime on the CPU."""

    runtime = ORT

    def _load(
        self, path: Path, threads: int
    ) -> tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]]:
        self._session = session(path, threads=threads)
        if tuple(self._session.get_providers()) != PROVIDERS:
            raise InputError(
                f"{path}: {ORT.title} runs it with {', '.join(self._session.get_providers())}, "
                f"asked for was {', '.join(PROVIDERS)}.",
                code="provider-not-used",
            )
        return (
            tuple(_onnx_info(path, argument) for argument in self._session.get_inputs()),
            tuple(_onnx_info(path, argument) for argument in self._session.get_outputs()),
        )

    def _run(self, arrays: Sequence[Array]) -> Sequence[Array]:
        feed = dict(zip(self.input_names, arrays, strict=True))
        outputs: Sequence[Array] = self._session.run(self.output_names, feed)
        return outputs

    def _prepare(self, arrays: Sequence[Array]) -> Prepared:
        engine = bound(self._session, arrays)
        return Prepared(engine.run, lambda: self._decoded(engine.read()))


_ONNX_TYPES = {"float": "float32", "double": "float64"} | {
    name: name
    for name in ("float16", "bool", *(f"{u}int{b}" for u in ("", "u") for b in (8, 16, 32, 64)))
}


def _onnx_info(path: Path, argument: Any) -> TensorInfo:
    """Describe an input or output of an .onnx file."""
    dtype = _ONNX_TYPES.get(argument.type.removeprefix("tensor(").removesuffix(")"))
    if dtype is None:
        raise InputError(
            f"{path}: {argument.name} is a {argument.type}; only numeric tensors can be run.",
            code="not-numeric",
        )
    shape = tuple(size if isinstance(size, int) else None for size in argument.shape)
    return TensorInfo(name=argument.name, shape=shape, dtype=dtype)
