"""Packing .tflite files anew."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from copy import copy
from typing import Any

from dsconvert.base.errors import require

_ALIGNMENT = 16
"""Bytes at which the schema has tensors start (force_align)."""


def packed(model: Any, size: int) -> bytes:
    """Return the model as a flatbuffer whose tensors are aligned.

    The schema's own packing forgets the alignment, without which runtimes copy the weights or
    refuse them.

    Args:
        model: A ``ModelT``.
        size: About how many bytes it will take.
    """
    schema = require("ai_edge_litert.schema_py_generated", "keras", "to write .tflite files")
    flatbuffers = require("flatbuffers", "keras", "to write .tflite files")

    class Aligned(schema.BufferT):  # type: ignore[misc, name-defined]
        def Pack(self, builder: Any) -> int:  # noqa: N802
            if self.data is None or not len(self.data):
                return int(super().Pack(builder))
            count = len(self.data)
            builder.StartVector(1, count, _ALIGNMENT)
            head = builder.head = builder.head - count
            builder.Bytes[head : head + count] = bytes(self.data)
            data = builder.EndVector()
            schema.BufferStart(builder)
            schema.BufferAddData(builder, data)
            return int(schema.BufferEnd(builder))

    model.buffers = [Aligned(b.data, b.offset, b.size) for b in model.buffers]
    builder = flatbuffers.Builder(size + (1 << 16))
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def with_own_buffers(content: bytes, tensors: Sequence[int]) -> bytes:
    """A file in which some tensors share their content with no other, so that it can be changed.

    The converter stores equal content once: all layers without a bias have one of zeros together.

    Args:
        content: The file.
        tensors: Of its first graph, by number.

    Returns:
        The file, packed anew if anything was shared.
    """
    schema = require("ai_edge_litert.schema_py_generated", "keras", "to write .tflite files")
    model = schema.ModelT.InitFromPackedBuf(content)
    readers = Counter(tensor.buffer for graph in model.subgraphs for tensor in graph.tensors)
    before = len(model.buffers)
    for index in tensors:
        tensor = model.subgraphs[0].tensors[index]
        if readers[tensor.buffer] > 1:
            readers[tensor.buffer] -= 1
            model.buffers.append(copy(model.buffers[tensor.buffer]))
            tensor.buffer = len(model.buffers) - 1
    return content if len(model.buffers) == before else packed(model, len(content))
