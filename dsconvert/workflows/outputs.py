"""Where results go: refused at once if they cannot go there, written in one step."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsconvert.base.arguments import as_path

from .model_files import path_of, refuse_tflite

if TYPE_CHECKING:
    from .model_files import ModelSource


def place(
    model: ModelSource, output: str | Path, *, overwrite: bool, allowed: tuple[str, ...]
) -> Path:
    """Check where a result of a model shall go.

    Args:
        model: What it is made from, which it must not replace.
        output: The file.
        overwrite: Whether it may exist.
        allowed: Its suffixes.

    Raises:
        InputError: If it cannot go there.
    """
    from dsconvert.base.errors import InputError
    from dsconvert.base.files import check_writable, refuse_folder

    source, path = path_of(model), as_path(output, "output")
    if source is not None:
        refuse_tflite(source)
    refuse_folder(path)
    if path.suffix not in allowed:
        raise InputError(
            f"{path} ends in {path.suffix!r}; allowed: {' or '.join(allowed)}.",
            f"Try: -o {path.with_suffix(allowed[0])}",
            code="wrong-suffix",
        )
    if source is not None and path.exists() and source.exists() and path.samefile(source):
        raise InputError(
            f"{path} is the model itself.", "Name another file with -o.", code="same-file"
        )
    check_writable(path, overwrite=overwrite)
    data = path.with_name(f"{path.name}.data")  # large weights of an ONNX model may go there
    if path.suffix == ".onnx" and data.exists():
        check_writable(data, overwrite=overwrite)
    return path


def write_json(record: Any, path: Path, *, overwrite: bool) -> None:
    """Write a record where it takes its place at once."""
    from dsconvert.base.files import replacing
    from dsconvert.base.json_text import indented

    with replacing(path, overwrite=overwrite) as temporary:
        temporary.write_bytes(indented(record) + b"\n")
