"""Running .tflite files with LiteRT."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from dsconvert.base.errors import InputError, require
from dsconvert.base.predictor import Array
from dsconvert.base.quiet import captured
from dsconvert.formats.tflite.compiled import HINT, is_compiled

from .registry import LITERT
from .session import Prepared, Session
from .tensor_info import TensorInfo


class LiteRTSession(Session):
    """A .tflite file in LiteRT's interpreter with the XNNPACK delegate.

    The interpreter's ``invoke`` was measured as fast as the newer CompiledModel (0.124 and
    0.126 ms on ResNet-8), which loads GPU and NPU plug-ins and needs fixed buffers.
    """

    runtime = LITERT

    def _load(
        self, path: Path, threads: int
    ) -> tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]]:
        litert = require(LITERT.module, LITERT.extra, LITERT.purpose)
        self._interpreter = litert.Interpreter(
            model_path=str(path), num_threads=threads, **self._options(litert)
        )
        inputs = self._interpreter.get_input_details()
        outputs = self._interpreter.get_output_details()
        self._inputs = [details["index"] for details in inputs]
        self._outputs = [details["index"] for details in outputs]
        self._shapes = [tuple(details["shape"]) for details in inputs]
        names = self._signature_names()
        described = (
            tuple(litert_info(path, details, names) for details in inputs),
            tuple(litert_info(path, details, names) for details in outputs),
        )
        # Free sizes are stored as 1, which a model may be unable to run: allocate when resized.
        if all(None not in info.shape for info in described[0]):
            self._interpreter.allocate_tensors()
        else:
            self._shapes = [() for _ in inputs]
        return described

    def _options(self, litert: Any) -> dict[str, Any]:
        """Return what else the interpreter is made with."""
        return {}

    def _remedy(self) -> str:
        with suppress(InputError):
            if is_compiled(self.path):
                return f"It was compiled for an Ethos-U NPU, and runs there alone. {HINT}"
        return ""

    def _signature_names(self) -> dict[int, str]:
        """Tensor index to the name that the file's signature gives it, if it has one."""
        names: dict[int, str] = {}
        for key in list(self._interpreter.get_signature_list())[:1]:
            runner = self._interpreter.get_signature_runner(key)
            for details in (runner.get_input_details(), runner.get_output_details()):
                names |= {tensor["index"]: name for name, tensor in details.items()}
        return names

    def _set(self, arrays: Sequence[Array]) -> None:
        """Put the arrays into the inputs, resizing them where needed."""
        shapes = [array.shape for array in arrays]
        if shapes != self._shapes:
            with captured():
                for index, shape in zip(self._inputs, shapes, strict=True):
                    self._interpreter.resize_tensor_input(index, shape)
                self._interpreter.allocate_tensors()
            self._shapes = shapes
        for index, array in zip(self._inputs, arrays, strict=True):
            self._interpreter.set_tensor(index, array)

    def _read(self) -> list[Array]:
        return [self._interpreter.get_tensor(index) for index in self._outputs]

    def _run(self, arrays: Sequence[Array]) -> Sequence[Array]:
        self._set(arrays)
        self._interpreter.invoke()
        return self._read()

    def _prepare(self, arrays: Sequence[Array]) -> Prepared:
        self._set(arrays)
        return Prepared(self._interpreter.invoke, lambda: self._decoded(self._read()))


def litert_info(path: Path, details: dict[str, Any], names: dict[int, str]) -> TensorInfo:
    """Describe a tensor of a .tflite file."""
    name = names.get(details["index"], details["name"])
    dtype = np.dtype(details["dtype"])
    if dtype.kind not in "fiub":
        raise InputError(
            f"{path}: {name} holds {dtype}; only numeric tensors can be run.", code="not-numeric"
        )
    signature = details.get("shape_signature", ())
    sizes = signature if len(signature) else details["shape"]
    scale, zero_point = details["quantization"]
    quantized = scale != 0 and dtype.kind in "iu"
    return TensorInfo(
        name=name,
        shape=tuple(int(size) if size >= 0 else None for size in sizes),
        dtype=dtype.name,
        scale=float(scale) if quantized else None,
        zero_point=int(zero_point) if quantized else None,
    )
