"""TensorFlow's tensors, as training and what stands for int8 files in it take them."""

from __future__ import annotations

from typing import Any

from .errors import require


def in_float32(tensor: Any) -> Any:
    """Return a tensor in float32; one of whole numbers as it is."""
    tf = require("tensorflow", "keras", "to train")
    return tf.cast(tensor, tf.float32) if tensor.dtype.is_floating else tensor
