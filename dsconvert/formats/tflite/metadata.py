"""Named metadata and class names in a .tflite file, by its own schema.

The file keeps named byte buffers beside its tensors. Class names go where TFLite's metadata
convention has them: a text file in a zip archive behind the model, and a buffer
``TFLITE_METADATA`` that says which output it belongs to. Its library, tflite-support, has not
been released since 2023; the few tables needed of its schema are written here.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from dsconvert.base.errors import InputError, require

from .checking import reading
from .pack import packed
from .tensor_names import shorten

_LARGEST = 2**31 - 2**26
"""Bytes that a flatbuffer can be packed to anew; larger files keep their tensors behind it."""
_CONVENTION = "TFLITE_METADATA"
LABELS = "labels.txt"
"""The name of the class names' file in the archive."""
_AXIS_LABELS = 2
"""AssociatedFileType.TENSOR_AXIS_LABELS."""


def write(
    path: Path,
    name: str,
    content: bytes,
    labels: Sequence[str] = (),
    layers: Collection[str] = (),
) -> None:
    """Put a named buffer into a .tflite file, and the class names if there are any.

    The file is packed anew, with shorter names for the tensors inside it.

    Args:
        path: The file; it is replaced.
        name: The buffer's name; one of this name is replaced.
        content: The buffer's bytes.
        labels: The names of the classes of the last-axis of the first output that has as many.
        layers: The names of the model's layers, for those of tensors; none where they have them.

    Raises:
        InputError: If the file is too large to be packed anew.
    """
    schema = require("ai_edge_litert.schema_py_generated", "keras", "to write .tflite files")
    data = path.read_bytes()
    if len(data) > _LARGEST:
        raise InputError(
            f"{path.name} has {len(data)} bytes, too many to hold metadata.", code="too-large"
        )
    model = schema.ModelT.InitFromPackedBuf(data)
    _put(schema, model, name, content)
    if labels:
        output = next(
            (
                n
                for n, index in enumerate(model.subgraphs[0].outputs)
                if list(model.subgraphs[0].tensors[index].shape)[-1:] == [len(labels)]
            ),
            0,
        )
        _put(schema, model, _CONVENTION, _labels_of_output(output))
    shorten(model, layers)
    path.write_bytes(packed(model, len(data)) + _archive(labels))


def read(path: Path, name: str) -> bytes | None:
    """Return the bytes of a named buffer; None if the file has none of this name."""
    schema = require("ai_edge_litert.schema_py_generated", "keras", "to read .tflite files")
    with reading(path):
        model = schema.Model.GetRootAs(path.read_bytes())
        for i in range(model.MetadataLength()):
            entry = model.Metadata(i)
            if entry.Name().decode() == name:
                return bytes(model.Buffers(entry.Buffer()).DataAsNumpy())
    return None


def _put(schema: Any, model: Any, name: str, content: bytes) -> None:
    """Add a named buffer to an unpacked model, or replace the one of this name."""
    import numpy as np

    data = np.frombuffer(content, np.uint8)
    model.metadata = list(model.metadata or [])
    entry = next((e for e in model.metadata if e.name.decode() == name), None)
    if entry is not None:
        model.buffers[entry.buffer].data = data
        return
    model.buffers.append(schema.BufferT(data=data))
    model.metadata.append(schema.MetadataT(name=name.encode(), buffer=len(model.buffers) - 1))


def _archive(labels: Sequence[str]) -> bytes:
    """Return a zip archive with the class names, one per line; nothing if there are none."""
    if not labels:
        return b""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:  # stored, since runtimes map it
        member = zipfile.ZipInfo(LABELS)  # of 1980: the same file each time
        archive.writestr(member, "\n".join(labels) + "\n")
    return buffer.getvalue()


def _labels_of_output(output: int) -> bytes:
    """Return the ModelMetadata table that gives an output's last axis the names in `LABELS`.

    The numbers are the fields' places in metadata_schema.fbs.
    """
    flatbuffers = require("flatbuffers", "keras", "to write .tflite files")
    builder = flatbuffers.Builder(256)

    def table(fields: int, **offsets: int) -> int:
        builder.StartObject(fields)
        for place, offset in offsets.items():
            builder.PrependUOffsetTRelativeSlot(int(place.removeprefix("_")), offset, 0)
        return int(builder.EndObject())

    def vector(items: Sequence[int]) -> int:
        builder.StartVector(4, len(items), 4)
        for item in reversed(items):
            builder.PrependUOffsetTRelative(item)
        return int(builder.EndVector())

    name = builder.CreateString(LABELS)
    description = builder.CreateString("The names of the classes.")
    builder.StartObject(5)  # AssociatedFile: name, description, type, locale, version
    builder.PrependUOffsetTRelativeSlot(0, name, 0)
    builder.PrependUOffsetTRelativeSlot(1, description, 0)
    builder.PrependInt8Slot(2, _AXIS_LABELS, 0)
    files = vector([int(builder.EndObject())])
    tensors = [table(7) for _ in range(output)]  # TensorMetadata: 6 is associated_files
    tensors.append(table(7, _6=files))
    graphs = vector(
        [table(10, _3=vector(tensors))]
    )  # SubGraphMetadata: 3 is output_tensor_metadata
    model = table(8, _3=graphs)  # ModelMetadata: 3 is subgraph_metadata
    builder.Finish(model, file_identifier=b"M001")
    return bytes(builder.Output())
