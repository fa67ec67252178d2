"""Weights that hold NaN or infinity: told by their layer, before any work."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from dsconvert.base.errors import InputError
from dsconvert.base.units import first_few

if TYPE_CHECKING:
    from .model_files import ModelFile

_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization")
"""ONNX operators whose constants are weights: a mask may well hold infinity."""


def check_weights(opened: ModelFile) -> None:
    """Refuse a model whose weights hold NaN or infinity.

    Args:
        opened: The model; an ONNX model's external data are read where they are.

    Raises:
        InputError: With the names of the first layers or nodes.
    """
    drawn = not hasattr(opened.model, "opset_import")  # an imported ONNX model is one of Keras
    names = list(dict.fromkeys(_of_keras(opened) if drawn else _of_onnx(opened)))
    if names:
        many = "" if len(names) == 1 else "s"
        raise InputError(
            f"{opened.told}: the weights of layer{many} {first_few(names)} hold NaN or infinity.",
            "Take a checkpoint of before the training went wrong.",
            code="not-finite",
        )


def _of_keras(opened: Any) -> Iterator[str]:
    import numpy as np

    for weight in opened.model.weights:
        stored = np.asarray(weight)
        if stored.dtype.kind in "fV" and not np.isfinite(stored.astype(np.float32)).all():
            yield weight.path.rsplit("/", 1)[0]


def _of_onnx(opened: Any) -> Iterator[str]:
    from dsconvert.formats.onnx.constants import is_finite
    from dsconvert.formats.onnx.graph import OnnxGraph, is_op

    graph = OnnxGraph(opened.model, opened.folder)
    for node in graph.nodes:
        weighted = is_op(node, *_WEIGHTED)
        if weighted and not all(is_finite(graph, name) for name in node.input if name):
            yield node.name or node.output[0]
