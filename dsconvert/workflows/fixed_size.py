"""Opened models at the sizes that a user gives their inputs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from dsconvert.base.input_size import InputSizes, fixed_shapes
from dsconvert.base.messages import note

if TYPE_CHECKING:
    from .model_files import ModelFile


def at_sizes(opened: ModelFile, sizes: InputSizes) -> ModelFile:
    """Fix the sizes that the inputs of a model leave free.

    Args:
        opened: The model; that of ONNX is changed in place.
        sizes: Of its inputs; where they are what it has already, it is handed back.

    Raises:
        InputError: If an input does not take its size, or the network does not run at it.
    """
    from dsconvert.base.errors import InputError

    onnx = opened.kind == "onnx"
    shapes = fixed_shapes(opened.input_names, opened.input_shapes, sizes, channels_first=onnx)
    if shapes == opened.input_shapes:
        return opened
    told = ", ".join("×".join(map(str, shape[1:])) for shape in shapes)
    try:
        if onnx:
            from dsconvert.formats.onnx.fixed_size import fix_sizes

            fix_sizes(opened.model, opened.folder, shapes)
            model = opened.model
        else:
            from dsconvert.models.loading.fixed_size import with_fixed_sizes

            model = with_fixed_sizes(opened.model, shapes)
    except Exception as error:  # whatever Keras raises, or ONNX Runtime's sentence
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(
            f"{opened.name} does not run at the size {told}: {lines[0].rstrip('.')}.",
            "Many networks need multiples of 8, 16 or 32: try another --input-size.",
            code="size-refused",
        ) from error
    note(f"{opened.name}: its input is fixed to {told}")
    return replace(opened, model=model, input_shapes=shapes, changed=True)
