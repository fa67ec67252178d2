"""Tensors of an ONNX file as arrays, wherever they are stored. The only file that knows how."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dsconvert.base.errors import InputError
from dsconvert.base.predictor import Array

from .messages import assign

if TYPE_CHECKING:
    from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto

DOMAINS = ("", "ai.onnx")
"""How ONNX's own operators call their domain."""
_FREE_WEIGHTS = 4
"""The IR version from which on initialisers are no inputs."""
FLOATS = (1, 10, 11, 16)
"""FLOAT, FLOAT16, DOUBLE, BFLOAT16: the element types of weights."""
INLINE = 1024
"""Bytes up to which a tensor stays in the model's own file: it may be a size, and ONNX Runtime
reads those nowhere else."""
STRING = 8
"""The element type of texts, which no array of numbers and no external file holds."""


def is_external(tensor: TensorProto) -> bool:
    """Tell whether its data are in a file beside the model."""
    return bool(tensor.data_location == 1)


def numpy_type(data_type: int) -> np.dtype[Any]:
    """ONNX's number of an element type as NumPy's type."""
    from onnx import helper

    dtype: np.dtype[Any] = np.dtype(helper.tensor_dtype_to_np_dtype(data_type))
    return dtype


def size_in_bytes(tensor: TensorProto) -> int:
    """Bytes of its data, without reading them; of strings, about."""
    count = int(prod(tensor.dims))
    dtype = numpy_type(tensor.data_type)
    bits = next((bits for bits in (2, 4) if re.search(f"(int|float){bits}(?!\\d)", dtype.name)), 0)
    return -(-count * bits // 8) if bits else count * int(dtype.itemsize)


def all_tensors(graph: GraphProto | FunctionProto) -> Iterator[TensorProto]:
    """Yield every tensor that a graph holds, those of its nodes and of inner graphs included."""
    return (tensor for tensor, _ in tensors_and_places(graph))


def tensors_of(model: ModelProto) -> Iterator[tuple[TensorProto, bool]]:
    """Yield every tensor of a model, each with whether it is an initialiser of the main graph."""
    for holder in (model.graph, *model.functions):
        yield from tensors_and_places(holder)


def has_external_data(model: ModelProto) -> bool:
    """Tell whether any of a model's tensors are in a file beside it."""
    return any(is_external(tensor) for tensor, _ in tensors_of(model))


def stored_tensors(model: ModelProto) -> dict[str, TensorProto]:
    """The tensors of the main graph that a node may read: initialisers, and of Constant nodes."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.domain in DOMAINS:
            stored |= {n: a.t for n in node.output for a in node.attribute if a.name == "value"}
    return stored


def tensors_and_places(graph: GraphProto | FunctionProto) -> Iterator[tuple[TensorProto, bool]]:
    """As `all_tensors`, each with whether it is an initialiser of this graph itself."""
    for tensor in getattr(graph, "initializer", ()):
        yield tensor, True
    for sparse in getattr(graph, "sparse_initializer", ()):
        yield sparse.values, False
        yield sparse.indices, False
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t, False
            for tensor in attribute.tensors:
                yield tensor, False
            if attribute.HasField("g"):
                yield from ((tensor, False) for tensor in all_tensors(attribute.g))
            for inner in attribute.graphs:
                yield from ((tensor, False) for tensor in all_tensors(inner))


def array_of(tensor: TensorProto, folder: Path | None) -> Array:
    """Return the tensor's values; external ones are mapped, not read.

    Args:
        tensor: The tensor.
        folder: Where the model's file is, for external data.

    Raises:
        InputError: If the external data are not where the model says.
    """
    from onnx import numpy_helper

    if not is_external(tensor):
        return np.asarray(numpy_helper.to_array(tensor))
    path, offset, _ = external_place(tensor, folder)
    dtype = numpy_type(tensor.data_type)
    shape = tuple(tensor.dims)
    if 0 in shape:
        return np.zeros(shape, dtype)
    if size_in_bytes(tensor) < dtype.itemsize * prod(shape):  # several values per byte
        return np.asarray(numpy_helper.to_array(embedded(tensor, folder)))
    return np.memmap(path, dtype, "r", offset, shape)


def embedded(tensor: TensorProto, folder: Path | None) -> TensorProto:
    """Return an external tensor with its data in itself.

    Raises:
        InputError: If the external data are not where the model says.
    """
    path, offset, length = external_place(tensor, folder)
    whole = type(tensor)()
    whole.CopyFrom(tensor)
    del whole.external_data[:]
    whole.ClearField("data_location")
    with path.open("rb") as file:
        file.seek(offset)
        whole.raw_data = file.read(length)
    return whole


def external_place(tensor: TensorProto, folder: Path | None) -> tuple[Path, int, int]:
    """Return the file, the offset and the length in bytes of external data, which are there.

    Raises:
        InputError: If the model was given without a folder, names a file outside of it, or one
            that is not there or too short.
    """
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    if folder is None:
        raise InputError(
            f"the data of tensor {tensor.name!r} are in the file {location!r}, and the model was "
            "given without its folder.",
            "Give the path of the .onnx file instead.",
            code="external-data-missing",
        )
    path = (folder / location.replace("\0", "")).resolve()  # with it, no system has such a file
    if not location or "\0" in location or not path.is_relative_to(folder.resolve()):
        beside = Path(os.path.normpath(folder / location.replace("\0", "")))
        link = bool(location) and "\0" not in location and beside.is_relative_to(folder)
        raise InputError(
            f"tensor {tensor.name!r} has its data in {location!r}, "
            f"{'a link that leads ' if link else ''}outside the model's folder.",
            # Caches of downloaded models hold such links.
            "Copy the folder with what its links lead to: cp -rL FOLDER COPY"
            if link
            else "Save the model again with its external data beside it.",
            code="external-data-outside",
        )
    needed = size_in_bytes(tensor)
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", needed))
    except ValueError:
        offset = length = -1
    held = path.stat().st_size if path.is_file() else None
    if held is None or offset < 0 or length < needed or offset + length > held:
        there = "is not there" if held is None else f"has {held} bytes"
        raise InputError(
            f"the data of tensor {tensor.name!r} should be {max(length, needed)} bytes at "
            f"{max(offset, 0)} of {path}, which {there}.",
            "Keep the model's external data file beside it, whole and under its own name.",
            code="external-data-missing",
        )
    return path, offset, length


def free_weights(model: ModelProto) -> bool:
    """Take weights off the inputs, where files of before IR version 4 list them.

    As inputs they would not be folded, and what is added to such a file would have to be listed
    too. The model's IR version becomes 4 at least.

    Returns:
        Whether anything changed.
    """
    held = {tensor.name for tensor in model.graph.initializer}
    fed = [value for value in model.graph.input if value.name not in held]
    if len(fed) == len(model.graph.input) and model.ir_version >= _FREE_WEIGHTS:
        return False
    assign(model.graph.input, fed)
    model.ir_version = max(model.ir_version, _FREE_WEIGHTS)
    return True


def constant_value(node: NodeProto, folder: Path | None) -> Array | None:
    """Return what a Constant node holds, or None for what is no plain tensor of numbers."""
    from onnx import helper

    for attribute in node.attribute:
        if attribute.name == "value":
            return array_of(attribute.t, folder)
        if attribute.name in ("value_float", "value_floats"):
            return np.asarray(helper.get_attribute_value(attribute), np.float32)
        if attribute.name in ("value_int", "value_ints"):
            return np.asarray(helper.get_attribute_value(attribute), np.int64)
    return None


def tensor_from(array: Any, name: str, data_type: int) -> TensorProto:
    """Return an array as an initialiser of the given element type."""
    from onnx import numpy_helper

    return numpy_helper.from_array(np.ascontiguousarray(array, numpy_type(data_type)), name)
