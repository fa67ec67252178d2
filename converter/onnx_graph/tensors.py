"""Tensors of an ONNX file as arrays, wherever they are stored. The only file that knows how."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.errors import InputError
from ..core.predictor import Array

if TYPE_CHECKING:
    from onnx import NodeProto, TensorProto

FLOATS = (1, 10, 11, 16)
"""FLOAT, FLOAT16, DOUBLE, BFLOAT16: the element types of weights."""


def is_external(tensor: TensorProto) -> bool:
    """Whether its data are in a file beside the model."""
    return bool(tensor.data_location == 1)


def size_in_bytes(tensor: TensorProto) -> int:
    """Bytes of its data, without reading them."""
    from onnx import helper

    count = int(np.prod(tensor.dims, dtype=np.int64))
    return count * int(np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type)).itemsize)


def array_of(tensor: TensorProto, folder: Path | None) -> Array:
    """The tensor's values; external ones are mapped, not read.

    Args:
        tensor: The tensor.
        folder: Where the model's file is, for external data.

    Raises:
        InputError: If the external data are not where the model says.
    """
    from onnx import helper, numpy_helper

    if not is_external(tensor):
        return np.asarray(numpy_helper.to_array(tensor))
    path, offset, _ = external_place(tensor, folder)
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
    shape = tuple(tensor.dims)
    if 0 in shape:
        return np.zeros(shape, dtype)
    try:
        return np.memmap(path, dtype, "r", offset, shape)
    except (OSError, ValueError) as error:
        raise InputError(
            f"the data of tensor {tensor.name!r} cannot be read from {path}: {error}",
            "Keep the model's external data file beside it, under its own name.",
        ) from error


def external_place(tensor: TensorProto, folder: Path | None) -> tuple[Path, int, int]:
    """The file, the offset and the length in bytes of external data.

    Raises:
        InputError: If the model was given without a folder, or names a file outside of it.
    """
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    if folder is None:
        raise InputError(
            f"the data of tensor {tensor.name!r} are in the file {location!r}, and the model was "
            "given without its folder.",
            "Give the path of the .onnx file instead.",
        )
    path = (folder / location).resolve()
    if not location or not path.is_relative_to(folder.resolve()):
        raise InputError(
            f"tensor {tensor.name!r} has its data in {location!r}, outside the model's folder.",
            "Save the model again with its external data beside it.",
        )
    return path, int(entries.get("offset", 0)), int(entries.get("length", size_in_bytes(tensor)))


def constant_value(node: NodeProto, folder: Path | None) -> Array | None:
    """What a Constant node holds, or None for what is no plain tensor of numbers."""
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
    """An array as an initialiser of the given element type."""
    from onnx import helper, numpy_helper

    dtype = helper.tensor_dtype_to_np_dtype(data_type)
    return numpy_helper.from_array(np.ascontiguousarray(array, dtype), name)
