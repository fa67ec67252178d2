"""What is exported: a Keras model, or a float32 .onnx file."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

from dsconvert.base.errors import InputError, require
from dsconvert.formats.quantization import Format

from .keras_source import KerasSource
from .onnx_source import OnnxSource

Source = KerasSource | OnnxSource

_ONNX_PACKAGES = ("onnx", "onnxruntime", "dsconvert")


def layer_names(source: Source) -> frozenset[str]:
    """Return the names of a Keras model's layers, those of nested models included."""
    if isinstance(source, OnnxSource):
        return frozenset()
    return frozenset(layer.name for layer in source.model._flatten_layers())


def check_labels(labels: Sequence[str], source: Source) -> None:
    """Refuse class names that are not one for each class.

    Raises:
        InputError: If no output has as many values.
    """
    if not labels:
        return
    if isinstance(source, OnnxSource):
        shapes = [info.shape for info in source.runtime.outputs]
    else:
        shapes = [tuple(tensor.shape) for tensor in source.model.outputs]
    sizes = [shape[-1] for shape in shapes if shape]
    if None not in sizes and len(labels) not in sizes:
        told = " and ".join(map(str, sizes))
        raise InputError(
            f"there are {len(labels)} labels, and the outputs have {told} values.",
            "Give one name per class, in the order of the classes.",
            code="labels-do-not-fit",
        )


def tools_of(source: Source, format: Format) -> dict[str, str]:
    """Return the versions of the packages that make a file of this format."""
    if isinstance(source, OnnxSource):
        return tools(*_ONNX_PACKAGES)
    if format == "onnx":
        return tools("keras", "tf2onnx", *_ONNX_PACKAGES)
    return tools("keras", "ai-edge-litert", "dsconvert")


def tools(*packages: str) -> dict[str, str]:
    """Return the versions of the packages that took part, and with Keras of TensorFlow."""
    found = {}
    if "keras" in packages:
        # TensorFlow is installed under several package names: tensorflow, tensorflow-cpu…
        tensorflow = require("tensorflow", "keras", "to export Keras models")
        found["tensorflow"] = tensorflow.__version__
    return found | {package: version(package) for package in packages}
