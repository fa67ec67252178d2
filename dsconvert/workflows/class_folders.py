"""Names of classes, where images lie in one folder for each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dsconvert.base.messages import note

if TYPE_CHECKING:
    from .data_for import DataSource
    from .model_files import ModelFile


def names_for(opened: ModelFile, source: DataSource | None) -> tuple[str, ...]:
    """Return the names of the folders that images lie in, if a model has as many classes.

    Args:
        opened: The model.
        source: Where the images are; anything but a folder names no classes.
    """
    from dsconvert.models.data.images import class_names

    if not isinstance(source, str | Path) or not Path(source).is_dir():
        return ()
    names, sizes = class_names(Path(source), "train"), _sizes(opened)
    if not names or None in sizes or len(names) in sizes:
        return names
    told = " and ".join(str(size) for size in sizes)
    note(
        f"{source} has {len(names)} folders of classes and the outputs have {told} values: their "
        "names are not kept in the file"
    )
    return ()


def _sizes(opened: ModelFile) -> list[int | None]:
    """Return how many values each output holds."""
    if opened.kind == "keras":
        return [tensor.shape[-1] for tensor in opened.model.outputs if tensor.shape]
    from dsconvert.formats.onnx.shapes import shape_of

    shapes = [shape_of(value) for value in opened.model.graph.output]
    return [shape[-1] for shape in shapes if shape]
