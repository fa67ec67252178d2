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

    masks = {id(weight) for weight in _held_constants(opened.model)}
    for weight in opened.model.weights:
        stored = np.asarray(weight)
        if stored.dtype.kind not in "fV":
            continue
        values = stored.astype(np.float32)
        wrong = np.isnan(values) if id(weight) in masks else ~np.isfinite(values)
        if wrong.any():
            yield weight.path.rsplit("/", 1)[0]


def _held_constants(model: Any) -> Iterator[Any]:
    """Yield the constants that the import of an ONNX file holds in layers: masks may be among them.

    Each is the one row of an Embedding that does not train.
    """
    for layer in model._flatten_layers():
        if type(layer).__name__ == "Embedding" and layer.input_dim == 1 and not layer.trainable:
            yield from layer.weights


def _of_onnx(opened: Any) -> Iterator[str]:
    from dsconvert.formats.onnx.constants import is_finite
    from dsconvert.formats.onnx.graph import OnnxGraph, is_op

    graph = OnnxGraph(opened.model, opened.folder)
    for node in graph.nodes:
        weighted = is_op(node, *_WEIGHTED)
        if weighted and not all(is_finite(graph, name) for name in node.input if name):
            yield node.name or node.output[0]
