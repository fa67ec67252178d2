"""Equal ranges between the two kernels of every pair, for models of both frameworks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dsconvert.base.errors import InputError
from dsconvert.base.predictor import Array


def equalized(
    model: Any, images: Sequence[Array], *, folder: Path | None = None
) -> tuple[Any, tuple[str, ...]]:
    """Give every channel between a depthwise and a 1×1 convolution the same range.

    It changes no output but by rounding. In 8 bits, where all these channels share one scale, it
    leaves none of them with a part of the steps only.

    Args:
        model: A `keras.Model` or an `onnx.ModelProto`; it is not changed.
        images: One array per input, (n, ...), as the model takes them; ranges are those on them.
        folder: Where the external data of an ONNX model are.

    Returns:
        The new model, or the one given where it has no such pairs, and what was done.

    Raises:
        InputError: If the model cannot be read or run.
    """
    kinds = [f"{kind.__module__}.{kind.__name__}" for kind in type(model).__mro__]
    if any(kind.startswith("onnx.") for kind in kinds):
        from .backends.onnx.equalize import equalized as equalized_onnx

        return equalized_onnx(model, images, folder)
    if any(kind.startswith(("keras.", "tensorflow.")) for kind in kinds):
        from .backends.keras.equalize import equalized as equalized_keras

        return equalized_keras(model, images)
    raise InputError(
        f"a {type(model).__name__} has no pairs to balance.",
        "Give a keras.Model or an onnx.ModelProto.",
        code="not-a-model",
    )
