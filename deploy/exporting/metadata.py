"""What an exported file says of itself, written into the file and read back."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import msgspec

from dsconvert.base.errors import InputError
from dsconvert.base.json_text import encoded
from dsconvert.formats.onnx.open import load
from dsconvert.formats.tflite import metadata as tflite_metadata

from ..runtimes.registry import runtime_for
from .records import Metadata

KEY = "dsconvert"
"""The name of the entry: in a .tflite file a metadata buffer, in an .onnx file a property."""


def stamp_tflite(path: Path, metadata: Metadata, layers: Collection[str] = ()) -> None:
    """Write the metadata into a .tflite file, in place of what it said before.

    Args:
        path: The file.
        metadata: What it shall say.
        layers: The names of the model's layers, the first time that it is stamped.
    """
    tflite_metadata.write(path, KEY, encoded(metadata), metadata.labels, layers)


def stamp_onnx(model: Any, metadata: Metadata) -> None:
    """Write the metadata into an `onnx.ModelProto`, in place of what it said before."""
    kept = [entry for entry in model.metadata_props if entry.key != KEY]
    properties = {entry.key: entry.value for entry in kept}
    del model.metadata_props[:]
    properties[KEY] = encoded(metadata).decode()
    for key, value in properties.items():
        model.metadata_props.add(key=key, value=value)


def metadata_of(model: Any) -> Metadata | None:
    """Return what an `onnx.ModelProto` says of itself; None if dsconvert did not write it.

    Raises:
        msgspec.DecodeError: If that cannot be read.
    """
    said = {entry.key: entry.value for entry in model.metadata_props}
    return None if KEY not in said else msgspec.json.decode(said[KEY], type=Metadata)


def read_metadata(path: str | Path) -> Metadata | None:
    """Return what a .tflite or .onnx file says of itself; None if dsconvert did not write it.

    Raises:
        InputError: If the file is missing, or what it says cannot be read.
        MissingExtra: If what reads its format is not installed.
    """
    path = Path(path)
    runtime_for(path)
    try:
        if path.suffix.lower() == ".tflite":
            content = tflite_metadata.read(path, KEY)
            return None if content is None else msgspec.json.decode(content, type=Metadata)
        return metadata_of(load(path))
    except ImportError:
        raise
    except Exception as error:  # what the parsers raise shares no base class
        raise InputError(
            f"{path}: its metadata cannot be read: {type(error).__name__}: {error}",
            code="metadata-unreadable",
        ) from error
