"""Copies of protobuf messages, and what its repeated fields lack: assignment."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from onnx import ModelProto

    M = TypeVar("M", bound=Message)


def copied(message: M) -> M:
    """Copy a message of any size: a serialised one ends at 2 GiB."""
    copy: M = type(message)()
    copy.CopyFrom(message)
    return copy


def assign(field: Any, values: Iterable[Any]) -> None:
    """Set a repeated field of messages to these, which may be some of its own."""
    copies = [copied(value) for value in values]
    del field[:]
    field.extend(copies)


def sha256_of(model: ModelProto) -> str:
    """Return the SHA-256 of a model that has no file, as 64 hexadecimal digits."""
    return hashlib.sha256(in_bytes(model)).hexdigest()


def in_bytes(message: Message) -> bytes:
    """Serialise a message of less than 2 GiB."""
    return bytes(message.SerializeToString(deterministic=True))


def copy_without_graph(model: ModelProto) -> ModelProto:
    """Copy versions, opsets, functions and metadata: everything but the graph."""
    copy = type(model)()
    for field, value in model.ListFields():
        if field.name == "graph":
            continue
        if field.is_repeated:
            getattr(copy, field.name).extend(value)
        elif field.message_type:
            getattr(copy, field.name).CopyFrom(value)
        else:
            setattr(copy, field.name, value)
    return copy


def undecodable(message: Message) -> str:
    """Name the first text of a message that is no UTF-8; empty if all are.

    Protobuf gives such a text as bytes, where a name is expected. Values of tensors are not read.
    """
    waiting = [message]
    while waiting:
        fields = (
            field
            for field in waiting.pop().ListFields()
            if field[0].type in (field[0].TYPE_STRING, field[0].TYPE_MESSAGE)
        )
        for field, value in fields:
            values = value if field.is_repeated else (value,)
            if field.type == field.TYPE_MESSAGE:
                waiting += values
            elif any(isinstance(text, bytes) for text in values):
                return str(field.name)
    return ""
