"""Sizes that a .tflite file leaves to whoever runs it."""

from __future__ import annotations

from typing import Any


def has_free_size(tensor: Any) -> bool:
    """Tell whether a tensor has a free size beside its batch.

    Args:
        tensor: As the flatbuffer's accessors give it.
    """
    sizes = (tensor.ShapeSignature(axis) for axis in range(1, tensor.ShapeSignatureLength()))
    return any(size < 0 for size in sizes)
