"""Sparse constants stored in full: neither ONNX's shape inference nor other tools read sparse ones.

ONNX Runtime does the same when it loads a file.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dsconvert.base.errors import InputError
from dsconvert.base.predictor import Array
from dsconvert.base.size_bounds import MOST_BYTES, VARIABLE, largest_tensor

from .nodes import inner_graphs, nodes_of
from .tensors import STRING, array_of, numpy_type, tensor_from

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, SparseTensorProto, TensorProto

_VALUE = "sparse_value"
"""The attribute of a Constant that is sparse."""


def store_in_full(model: ModelProto, folder: Path | None) -> None:
    """Let initialisers and Constant nodes that are sparse hold all their values.

    Args:
        model: The model, which is changed.
        folder: Where its external data are.

    Raises:
        InputError: If one is damaged, or takes more than a tensor may.
    """
    from onnx import helper

    for graph in _graphs(model):
        for sparse in graph.sparse_initializer:
            graph.initializer.append(_full(sparse, folder))
        del graph.sparse_initializer[:]
    for holder in (model.graph, *model.functions):
        for node in nodes_of(holder):
            for attribute in node.attribute:
                if attribute.name == _VALUE and attribute.HasField("sparse_tensor"):
                    value = _full(attribute.sparse_tensor, folder)
                    value.name = next(iter(node.output), "")
                    attribute.CopyFrom(helper.make_attribute("value", value))


def _graphs(model: ModelProto) -> Iterator[GraphProto]:
    yield model.graph
    for holder in (model.graph, *model.functions):
        for node in nodes_of(holder):
            yield from inner_graphs(node)


def _full(sparse: SparseTensorProto, folder: Path | None) -> TensorProto:
    """Return a sparse tensor as one that holds its zeros, too."""
    name, kind, shape = sparse.values.name, sparse.values.data_type, tuple(sparse.dims)
    if kind == STRING or min(shape, default=0) < 0:
        raise _damaged(name, "its values or sizes are no numbers of a tensor")
    size, most = prod(shape) * numpy_type(kind).itemsize, largest_tensor(MOST_BYTES)
    if size > most:
        raise InputError(
            f"the sparse tensor {name!r} would take {size:,} bytes with its zeros; at most "
            f"{most:,} are taken.",
            f"Else set {VARIABLE}={-(-size // 2**30)}GiB.",
            code="tensor-too-large",
        )
    try:
        values, places = array_of(sparse.values, folder), array_of(sparse.indices, folder)
        full = np.zeros(shape, values.dtype)
        full[_at(places, len(values), shape)] = values
    except (ValueError, TypeError, IndexError, OverflowError) as error:
        raise _damaged(name, str(error)) from error
    return tensor_from(full, name, kind)


def _at(places: Array, count: int, shape: tuple[int, ...]) -> tuple[Array, ...]:
    """Return the places along each axis, of those that are counted through or given for each."""
    if places.shape == (count,):
        return np.unravel_index(places, shape)
    if places.shape != (count, len(shape)):
        raise ValueError(f"its {count} values have places of shape {places.shape}")
    if (places < 0).any():
        raise IndexError("a place is negative")
    return tuple(places.T)


def _damaged(name: str, why: str) -> InputError:
    return InputError(
        f"the sparse tensor {name!r} is damaged: {why}.",
        "Copy the file again, or export it again from where it was made.",
        code="damaged-file",
    )
