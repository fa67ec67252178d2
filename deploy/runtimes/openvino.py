"""Running .onnx and .tflite files with OpenVINO."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dsconvert.base.errors import InputError, require
from dsconvert.base.predictor import Array

from ..runner.openvino_engine import bound, compiled
from .registry import LITERT, OPENVINO
from .session import Prepared, Session
from .tensor_info import TensorInfo

_TYPES = {"boolean": "bool"} | {
    f"{short}{bits}": f"{kind}{bits}"
    for short, kind, sizes in (
        ("f", "float", (16, 32, 64)),
        ("i", "int", (8, 16, 32, 64)),
        ("u", "uint", (8, 16, 32, 64)),
    )
    for bits in sizes
}


class OpenVinoSession(Session):
    """An .onnx or .tflite file in OpenVINO on the CPU, computed in float32."""

    runtime = OPENVINO

    def _load(
        self, path: Path, threads: int
    ) -> tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]]:
        self._openvino = require(OPENVINO.module, OPENVINO.extra, OPENVINO.purpose)
        model = compiled(self._openvino, str(path), threads)
        self._request = model.create_infer_request()
        described = (
            tuple(_info(path, port) for port in model.inputs),
            tuple(_info(path, port) for port in model.outputs),
        )
        if LITERT.runs(path) and any(_is_stored(info) for infos in described for info in infos):
            return _with_scales(path, described)
        return described

    def _run(self, arrays: Sequence[Array]) -> Sequence[Array]:
        engine = bound(self._openvino, self._request, arrays)
        engine.run()
        return engine.read()

    def _prepare(self, arrays: Sequence[Array]) -> Prepared:
        engine = bound(self._openvino, self._request, arrays)
        return Prepared(engine.run, lambda: self._decoded(engine.read()))


def _info(path: Path, port: Any) -> TensorInfo:
    """Describe an input or output, by the name that the file gives it."""
    name = port.node.get_friendly_name().partition("/sink_port_")[0]
    if name not in port.get_names() and port.get_names():
        name = port.get_any_name()
    kind = port.get_element_type().get_type_name()
    dtype = _TYPES.get(kind)
    if dtype is None:  # also those that OpenVINO would hand out as another type
        raise InputError(
            f"{path}: {name} holds {kind}; only numeric tensors can be run.", code="not-numeric"
        )
    sizes = (size.get_length() if size.is_static else None for size in port.get_partial_shape())
    return TensorInfo(name=name, shape=tuple(sizes), dtype=dtype)


def _is_stored(info: TensorInfo) -> bool:
    """Tell whether a tensor of a .tflite file may stand for real values by a scale."""
    return info.dtype in ("int8", "uint8", "int16")


def _with_scales(
    path: Path, described: tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]]
) -> tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]]:
    """Inputs and outputs with their scales, which OpenVINO does not tell: LiteRT reads them.

    Raises:
        InputError: If the two do not agree on what the file takes and gives.
        MissingExtra: If LiteRT is not installed.
    """
    session = LITERT.open(path, 1)
    for ours, theirs in zip(described, (session.inputs, session.outputs), strict=True):
        if [(one.shape, one.dtype) for one in ours] != [(one.shape, one.dtype) for one in theirs]:
            raise InputError(
                f"{path}: {OPENVINO.title} reads other inputs or outputs in it than "
                f"{LITERT.title}, which alone knows their scales.",
                "Leave --runtime out.",
                code="signature-differs",
            )
    return session.inputs, session.outputs
