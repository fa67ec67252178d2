"""Writing a large model in protobuf's wire format without a second copy of its weights.

``SerializeToString`` needs room for all weights twice over, beside the model itself. Here each
large tensor passes through memory by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

from .messages import copy_without_graph, in_bytes
from .tensors import FLOATS, size_in_bytes

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from onnx import ModelProto, TensorProto

LIMIT = (1 << 31) - 1
"""Bytes that any protobuf library takes as one message."""
_LARGE = 1 << 16
_HEADER = ("dims", "data_type", "segment", "name", "doc_string", "metadata_props")


def write(model: ModelProto, file: BinaryIO) -> None:
    """Write what ``model.SerializeToString()`` means, field by field.

    Raises:
        ValueError: If it is larger than protobuf allows.
    """
    large = [tensor for tensor in model.graph.initializer if _is_large(tensor)]
    graph = type(model.graph)()
    for field in model.graph.DESCRIPTOR.fields:
        if field.name == "initializer":
            for tensor in model.graph.initializer:
                if not _is_large(tensor):
                    graph.initializer.add().CopyFrom(tensor)
        elif field.is_repeated:
            getattr(graph, field.name).extend(getattr(model.graph, field.name))
        elif model.graph.HasField(field.name):
            setattr(graph, field.name, getattr(model.graph, field.name))
    rest, small = in_bytes(copy_without_graph(model)), in_bytes(graph)
    heads = [_head(tensor) for tensor in large]
    bodies = map(size_in_bytes, large)
    sizes = [len(head) + size for head, size in zip(heads, bodies, strict=True)]
    prefixes = [_prefix(graph, "initializer", size) for size in sizes]
    total = len(small) + sum(sizes) + sum(map(len, prefixes))
    if len(rest) + total > LIMIT - 64:
        raise ValueError("the model is too large for one file")
    file.write(rest + _prefix(model, "graph", total) + small)
    for tensor, head, prefix in zip(large, heads, prefixes, strict=True):
        file.write(prefix + head)
        file.write(tensor.raw_data)


def _is_large(tensor: TensorProto) -> bool:
    floats = tensor.data_type in FLOATS
    return floats and tensor.HasField("raw_data") and size_in_bytes(tensor) > _LARGE


def _head(tensor: TensorProto) -> bytes:
    """Return a tensor up to the bytes of its data."""
    head = type(tensor)()
    for name in _HEADER:
        field = tensor.DESCRIPTOR.fields_by_name[name]
        if field.is_repeated:
            getattr(head, name).extend(getattr(tensor, name))
        elif field.message_type is None:
            setattr(head, name, getattr(tensor, name))
        elif tensor.HasField(name):
            getattr(head, name).CopyFrom(getattr(tensor, name))
    return in_bytes(head) + _prefix(tensor, "raw_data", size_in_bytes(tensor))


def _prefix(message: Message, field: str, length: int) -> bytes:
    """Return the tag and the length of a field whose bytes follow."""
    number = message.DESCRIPTOR.fields_by_name[field].number
    return bytes((*_varint(number << 3 | 2), *_varint(length)))


def _varint(value: int) -> Iterator[int]:
    while value > 0x7F:
        yield value & 0x7F | 0x80
        value >>= 7
    yield value
