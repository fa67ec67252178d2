"""Running .onnx files with ONNX Runtime."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dsconvert.base.errors import InputError
from dsconvert.base.predictor import Array, Shape
from dsconvert.formats.onnx.dequantize import is_quantized
from dsconvert.formats.onnx.open import embed_sizes, load
from dsconvert.formats.onnx.outputs import left_out_by
from dsconvert.formats.onnx.session import PROVIDERS, session
from dsconvert.formats.onnx.sizes import largest_of

from ..runner.ort_engine import bound
from .registry import ORT
from .session import Prepared, Session
from .tensor_info import TensorInfo

_KEPT = 32 << 20
"""Bytes of a tensor up to which ONNX Runtime may keep its memory from one run to the next."""


class OnnxRuntimeSession(Session):
    """An .onnx file in ONNX Runtime on the CPU."""

    runtime = ORT
    _gives_back = False

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
            tuple(_onnx_info(path, one, output=True) for one in self._session.get_outputs()),
        )

    def _largest(self, shapes: tuple[Shape, ...]) -> int:
        try:
            largest = largest_of(load(self.path), self.path.parent, shapes)
        except (InputError, OSError):  # the file is gone, or the package that reads it is not there
            return 0
        self._gives_back = largest > _KEPT
        return largest

    def _remedy(self) -> str:
        try:
            model = load(self.path)
        except (InputError, OSError):
            return ""
        if embed_sizes(model, self.path.parent):  # says so where they are missing
            return (
                "Its sizes are in the file beside it, and ONNX Runtime reads them in the model's "
                'own alone. Write it anew: python -c "import onnx; onnx.save(onnx.load('
                f"{str(self.path)!r}), 'new.onnx', save_as_external_data=True, "
                "location='new.data')\""
            )
        if not is_quantized(model):
            return ""
        return (
            "It is quantized; the float model that it stands for is written by: dsconvert export "
            f"{shlex.quote(str(self.path))} --dequantize -o float.onnx"
        )

    def _run(self, arrays: Sequence[Array]) -> Sequence[Array]:
        feed = dict(zip(self.input_names, arrays, strict=True))
        options = _giving_back() if self._gives_back else None
        outputs: Sequence[Array] = self._session.run(self.output_names, feed, options)
        return outputs

    def _prepare(self, arrays: Sequence[Array]) -> Prepared:
        engine = bound(self._session, arrays)
        return Prepared(engine.run, lambda: self._decoded(engine.read()))


def _giving_back() -> Any:
    """Return options of a run that gives its memory back: several files are open at once."""
    import onnxruntime

    options = onnxruntime.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options


_ONNX_TYPES = {"float": "float32", "double": "float64"} | {
    name: name
    for name in ("float16", "bool", *(f"{u}int{b}" for u in ("", "u") for b in (8, 16, 32, 64)))
}


def _onnx_info(path: Path, argument: Any, *, output: bool = False) -> TensorInfo:
    """Describe an input or output of an .onnx file."""
    dtype = _ONNX_TYPES.get(argument.type.removeprefix("tensor(").removesuffix(")"))
    if dtype is None:
        raise InputError(
            f"{path}: {argument.name} is a {argument.type}; only numeric tensors can be run.",
            f"Leave it out: {left_out_by([argument.name], str(path))}" if output else "",
            code="not-numeric",
        )
    shape = tuple(size if isinstance(size, int) else None for size in argument.shape)
    return TensorInfo(name=argument.name, shape=shape, dtype=dtype)
