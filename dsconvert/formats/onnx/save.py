"""Writing an ONNX model, with external data where it had some, and never two copies of those."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from dsconvert.base.errors import GateFailed, InputError, require
from dsconvert.base.files import check_writable, replacing

from .checking import Refused, check_runs
from .protobuf_stream import LIMIT, write
from .tensors import external_place, is_external, size_in_bytes, tensors_and_places

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto

_ALIGNMENT = 4096
"""Where tensors start in an external file, so that a runtime can map them."""
_INLINE = 1024
"""Tensors of up to so many bytes stay in the model's own file."""
_SINGLE = LIMIT - (64 << 20)
"""Bytes of tensors above which a model gets external data."""
_STRING = 8
"""The element type of strings, which cannot be external."""


def data_path(path: Path) -> Path:
    """The file beside a model that holds its external data."""
    return path.with_name(path.name + ".data")


def save(model: ModelProto, folder: Path | None, path: Path, *, overwrite: bool) -> int:
    """Write a model that has passed the checks of `check_runs`, as one file or two.

    A model with external data keeps them external, in one file called ``path`` + ".data". So does
    one that is too large for a single file.

    Args:
        model: The model; it is not changed.
        folder: Where its external data are.
        path: The file to write.
        overwrite: Whether existing files may be replaced.

    Returns:
        How many bytes were written, to one file or two.

    Raises:
        InputError: If a file exists or cannot be written, or holds weights of the model itself.
        GateFailed: If the model is not valid or ONNX Runtime does not take it.
    """
    try:
        check_runs(model, folder)
    except Refused as error:
        raise GateFailed(
            f"the model to be written to {path} does not run; {error}",
            "Please report this as a bug, with the model.",
        ) from error
    tensors = list(_tensors(model))
    places = {external_place(t, folder)[0] for t, _ in tensors if is_external(t)}
    for place in places & {path.resolve(), data_path(path).resolve()}:
        raise InputError(f"{place} holds weights of the model itself.", "Name another file.")
    external = places or sum(size_in_bytes(t) for t, _ in tensors) > _SINGLE
    beside = 0
    with ExitStack() as stack:
        if external:
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
                ) from error
            return file.tell() + beside


def _moved_out(model: ModelProto, folder: Path | None, file: BinaryIO, name: str) -> ModelProto:
    """A copy of the model whose large tensors are in ``file``, copied piece by piece."""
    import onnx

    moved = onnx.ModelProto()
    moved.CopyFrom(model)
    for tensor, initialiser in _tensors(moved):
        if is_external(tensor):
            source, offset, length = external_place(tensor, folder)
            start = _aligned(file)
            with source.open("rb") as reader:
                reader.seek(offset)
                _copy(reader, file, length)
        elif initialiser and size_in_bytes(tensor) > _INLINE and tensor.data_type != _STRING:
            if not tensor.HasField("raw_data"):
                array = onnx.numpy_helper.to_array(tensor)
                tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
            start, length = _aligned(file), len(tensor.raw_data)
            file.write(tensor.raw_data)
            tensor.ClearField("raw_data")
        else:
            continue
        _refer(tensor, name, start, length)
    return moved


def _tensors(model: ModelProto) -> Iterator[tuple[TensorProto, bool]]:
    for holder in (model.graph, *model.functions):
        yield from tensors_and_places(holder)


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
            )
        writer.write(piece)
        length -= len(piece)


def _refer(tensor: TensorProto, name: str, start: int, length: int) -> None:
    del tensor.external_data[:]
    tensor.data_location = 1  # EXTERNAL
    for key, value in (("location", name), ("offset", start), ("length", length)):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, str(value)


def write_model(proto: Any, path: Path, external: bool) -> None:
    """Write an `onnx.ModelProto`, with its large weights beside it if wanted."""
    onnx = require("onnx", "onnx", "to write .onnx files")
    if external:
        onnx.save_model(
            proto,
            path,
            save_as_external_data=True,
            location=f"{path.name}.data",
            size_threshold=1024,
        )
    else:
        onnx.save_model(proto, path)


def without_unused_domains(proto: Any, before: Any) -> None:
    """Drop the opset imports that a tool added and no node uses.

    Args:
        proto: The `onnx.ModelProto` to tidy.
        before: The one that it was made from, whose imports are kept.
    """
    kept = {opset.domain for opset in before.opset_import}
    kept |= {node.domain for node in proto.graph.node} | {""}
    imports = [(o.domain, o.version) for o in proto.opset_import if o.domain in kept]
    del proto.opset_import[:]
    for domain, version in imports:
        proto.opset_import.add(domain=domain, version=version)


def opset_of(proto: Any) -> int:
    """Return the opset of ONNX's own operators that a model imports; 1 where none is named."""
    versions = [o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")]
    return int(max(versions, default=1))
