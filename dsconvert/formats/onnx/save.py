"""Writing an ONNX model, with external data where it had some, and never two copies of those."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from dsconvert.base.errors import GateFailed, InputError
from dsconvert.base.files import check_writable, replacing

from .checking import Refused, check_runs
from .messages import assign, copied
from .protobuf_stream import LIMIT, write
from .tensors import (
    INLINE,
    STRING,
    external_place,
    has_external_data,
    is_external,
    size_in_bytes,
    tensors_of,
)

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto

_ALIGNMENT = 4096
"""Where tensors start in an external file, so that a runtime can map them."""
_SINGLE = LIMIT - (64 << 20)
"""Bytes of tensors above which a model gets external data."""


def data_path(path: Path) -> Path:
    """Return the file beside a model that holds its external data."""
    return path.with_name(path.name + ".data")


def save(
    model: ModelProto,
    folder: Path | None,
    path: Path,
    *,
    overwrite: bool,
    external: bool | None = None,
    check: bool = True,
) -> int:
    """Write a model as one file or two, which take their place when they are whole.

    A model with external data keeps them external, in one file called ``path`` + ".data". So does
    one that is too large for a single file.

    Args:
        model: The model; it is not changed.
        folder: Where its external data are.
        path: The file to write.
        overwrite: Whether existing files may be replaced.
        external: Whether large weights go into the second file; None for as the model has them.
            With False, weights that are external already stay in the file where they are.
        check: Whether to see first that the model is valid and that ONNX Runtime takes it.

    Returns:
        How many bytes were written, to one file or two.

    Raises:
        InputError: If a file exists or cannot be written, or holds weights of the model itself.
        GateFailed: If the model is not valid or ONNX Runtime does not take it.
    """
    if check:
        try:
            check_runs(model, folder)
        except Refused as error:
            raise GateFailed(
                f"the model to be written to {path} does not run; {error}",
                "Please report this as a bug, with the model.",
                code="does-not-run",
            ) from error
    if external is None:
        large = sum(size_in_bytes(tensor) for tensor, _ in tensors_of(model)) > _SINGLE
        external = large or has_external_data(model)
    beside = 0
    with ExitStack() as stack:
        if external:
            _refuse_own_data(model, folder, path)
            # Before anything is written: both files or none.
            check_writable(path, overwrite=overwrite)
            data = stack.enter_context(replacing(data_path(path), overwrite=overwrite))
            with data.open("wb") as file:
                model = _moved_out(model, folder, file, data.name)
                beside = file.tell()
        temporary = stack.enter_context(replacing(path, overwrite=overwrite))
        with temporary.open("wb") as file:
            try:
                write(model, file)
            except ValueError as error:
                raise InputError(
                    f"{path}: what is no external data has more than the format's 2 GiB.",
                    "Save the original with all its weights as initialisers in external data.",
                    code="too-large",
                ) from error
            return file.tell() + beside


def _refuse_own_data(model: ModelProto, folder: Path | None, path: Path) -> None:
    places = {external_place(t, folder)[0] for t, _ in tensors_of(model) if is_external(t)}
    for place in places & {path.resolve(), data_path(path).resolve()}:
        raise InputError(
            f"{place} holds weights of the model itself.", "Name another file.", code="own-weights"
        )


def _moved_out(model: ModelProto, folder: Path | None, file: BinaryIO, name: str) -> ModelProto:
    """Return a copy of the model whose large tensors are in ``file``, copied piece by piece."""
    from onnx import numpy_helper

    moved = copied(model)
    for tensor, initialiser in tensors_of(moved):
        if is_external(tensor):
            source, offset, length = external_place(tensor, folder)
            start = _aligned(file)
            with source.open("rb") as reader:
                reader.seek(offset)
                _copy(reader, file, length)
        elif initialiser and size_in_bytes(tensor) > INLINE and tensor.data_type != STRING:
            if not tensor.HasField("raw_data"):
                array = numpy_helper.to_array(tensor)
                tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
            start, length = _aligned(file), len(tensor.raw_data)
            file.write(tensor.raw_data)
            tensor.ClearField("raw_data")
        else:
            continue
        _refer(tensor, name, start, length)
    return moved


def _aligned(file: Any) -> int:
    file.write(bytes(-file.tell() % _ALIGNMENT))
    return int(file.tell())


def _copy(reader: BinaryIO, writer: BinaryIO, length: int) -> None:
    while length > 0:
        piece = reader.read(min(length, 16 << 20))
        if not piece:
            raise InputError(
                "an external data file is shorter than the model says.",
                "Copy the model again, with all its files.",
                code="damaged-file",
            )
        writer.write(piece)
        length -= len(piece)


def _refer(tensor: TensorProto, name: str, start: int, length: int) -> None:
    del tensor.external_data[:]
    tensor.data_location = 1  # EXTERNAL
    for key, value in (("location", name), ("offset", start), ("length", length)):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, str(value)


def without_unused_domains(model: ModelProto, before: ModelProto) -> None:
    """Drop the opset imports that a tool added and no node uses.

    Args:
        model: The model to tidy.
        before: The one that it was made from, whose imports are kept.
    """
    kept = {opset.domain for opset in before.opset_import}
    kept |= {node.domain for node in model.graph.node} | {""}
    assign(model.opset_import, [opset for opset in model.opset_import if opset.domain in kept])
