"""Functions of TensorFlow spelled out in others that a file format has, while a model is traced.

What Keras' layers, its operations and functions of old files have in common is what they call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from dsconvert.base.errors import require
from dsconvert.formats.quantization import Format, Quantization

from ..schemes import SCHEMES
from .elementwise_calls import elementwise_calls
from .masked_calls import masking_calls
from .masked_scores import masked_logits
from .resize_calls import by_matrices, by_places
from .unit_calls import unit_calls

_MASKS = "_apply_masks"
"""What masks the scores of `keras.ops.dot_product_attention`."""


@contextmanager
def equal_calls(format: Format, quantize: Quantization = "none") -> Iterator[None]:
    """Let functions that a file has no operator for compute by others, inside the context.

    Args:
        format: Of the file.
        quantize: How it is quantized.
    """
    tf = require("tensorflow", "keras", "to export Keras models")
    scheme = SCHEMES[quantize]
    with ExitStack() as stack:
        if format == "onnx":
            stack.enter_context(replaced(tf.image, "resize", by_places(tf)))
        stack.enter_context(replaced(tf.image, "resize", by_matrices(tf)))
        if format == "tflite":
            for module, name, function in elementwise_calls(tf, static=scheme.static):
                stack.enter_context(replaced(module, name, function))
        if scheme.static:
            stack.enter_context(replaced(tf, "reverse", _by_slices(tf)))
            for calls in (masking_calls, *([unit_calls] if scheme.norms else [])):
                for module, name, function in calls(tf):
                    stack.enter_context(replaced(module, name, function))
            functions = require(
                "keras.src.backend.tensorflow.nn", "keras", "to export Keras models"
            )
            if hasattr(functions, _MASKS):  # of Keras' own, and of some versions
                stack.enter_context(replaced(functions, _MASKS, masked_logits(tf)))
        yield


@contextmanager
def replaced(module: Any, name: str, function: Callable[..., Any]) -> Iterator[None]:
    """Let a module have another function of a name, inside the context."""
    given = getattr(module, name)
    setattr(module, name, function)
    try:
        yield
    finally:
        setattr(module, name, given)


def _by_slices(tf: Any) -> Callable[..., Any]:
    """Turn axes around by slices of step -1.

    TFLite's REVERSE copies int8 values unchanged. Where a concatenation reads it the converter
    gives its output another scale than its input, and the values become others.
    """
    reverse = tf.reverse

    def turned(tensor: Any, axis: Any, name: str | None = None) -> Any:
        tensor = tf.convert_to_tensor(tensor)
        axes, rank = tf.get_static_value(axis), tensor.shape.rank
        if axes is None or rank is None:
            return reverse(tensor, axis, name)
        backwards = {int(one) % rank for one in np.reshape(axes, -1)}
        return tensor[tuple(slice(None, None, -1 if i in backwards else 1) for i in range(rank))]

    return turned
