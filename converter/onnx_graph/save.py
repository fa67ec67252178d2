"""Writing an ONNX model, with external data where it had some, and never two copies of those."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ..core.errors import GateFailed, InputError
from ..core.files import check_writable, replacing
from .light import Refused, check_runs
from .tensors import external_place, is_external, size_in_bytes
from .wire import write

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, TensorProto

_ALIGNMENT = 4096
"""Where tensors start in an external file, so that a runtime can map them."""
_INLINE = 1024
"""Tensors of up to so many bytes stay in the model's own file."""


def data_path(path: Path) -> Path:
    """The file beside a model that holds its external data."""
    return path.with_name(path.name + ".data")


def save(model: ModelProto, folder: Path | None, path: Path, *, overwrite: bool) -> None:
    """Write a model that has passed the checks of `check_runs`, as one file or two.

    A model with external data keeps them external, in one file called ``path`` + ".data".

    Args:
        model: The model; it is not changed.
        folder: Where its external data are.
        path: The file to write.
        overwrite: Whether existing files may be replaced.

    Raises:
        InputError: If a file exists or cannot be written, or the model is too large for one file.
        GateFailed: If the model is not valid or ONNX Runtime does not take it.
    """
    try:
        check_runs(model, folder)
    except Refused as error:
        raise GateFailed(
            f"the model to be written to {path} does not run; {error}",
            "Please report this as a bug, with the model.",
        ) from error
    external = any(map(is_external, all_tensors(model.graph)))
    with ExitStack() as stack:
        if external:
            # Before anything is written: both files or none.
            check_writable(path, overwrite=overwrite)
            data = stack.enter_context(replacing(data_path(path), overwrite=overwrite))
            with data.open("wb") as file:
                model = _moved_out(model, folder, file, data.name)
        temporary = stack.enter_context(replacing(path, overwrite=overwrite))
        with temporary.open("wb") as file:
            try:
                write(model, file)
            except ValueError as error:
                raise InputError(
                    f"{path}: a single file of this format holds 2 GiB at most.",
                    "Save the original with external data, and rewrite that.",
                ) from error


def all_tensors(graph: GraphProto) -> Iterator[TensorProto]:
    """Every tensor that a graph holds, those of its nodes and of inner graphs included."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("g"):
                yield from all_tensors(attribute.g)
            for inner in attribute.graphs:
                yield from all_tensors(inner)


def _moved_out(model: ModelProto, folder: Path | None, file: BinaryIO, name: str) -> ModelProto:
    """A copy of the model whose large tensors are in ``file``, copied piece by piece."""
    import onnx

    moved = onnx.ModelProto()
    moved.CopyFrom(model)
    for tensor in all_tensors(moved.graph):
        if is_external(tensor):
            source, offset, length = external_place(tensor, folder)
            start = _aligned(file)
            with source.open("rb") as reader:
                reader.seek(offset)
                _copy(reader, file, length)
        elif size_in_bytes(tensor) > _INLINE:
            content = onnx.numpy_helper.to_array(tensor).tobytes()
            start, length = _aligned(file), len(content)
            file.write(content)
            for field in ("raw_data", "float_data", "int32_data", "int64_data", "double_data"):
                tensor.ClearField(field)
            tensor.ClearField("uint64_data")
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
            )
        writer.write(piece)
        length -= len(piece)


def _refer(tensor: TensorProto, name: str, start: int, length: int) -> None:
    del tensor.external_data[:]
    tensor.data_location = 1  # EXTERNAL
    for key, value in (("location", name), ("offset", start), ("length", length)):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, str(value)
