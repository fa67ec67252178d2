"""Functions of TensorFlow spelled out in others that a file format has, while a model is traced.

What Keras' layers, its operations and functions of old files have in common is what they call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from dsconvert.base.errors import require
from dsconvert.base.predictor import Array
from dsconvert.formats.quantization import Format

from .elementwise_calls import elementwise_calls
from .masked_calls import masking_calls
from .masked_scores import masked_logits
from .unit_calls import unit_calls

_SPELLED = ("bicubic", "area", "lanczos3", "lanczos5", "gaussian", "mitchellcubic")
"""Ways to resize that no format has an operator for. That of ONNX for cubic filters is 1e-3 away,
and ONNX Runtime refuses it behind a Transpose that it has moved."""
_MASKS = "_apply_masks"
"""What masks the scores of `keras.ops.dot_product_attention`."""
_UNSMOOTHED = ("nearest", "area")
"""Ways in which TensorFlow does not smooth beforehand, though it is asked to."""


@contextmanager
def equal_calls(format: Format, *, static: bool = False) -> Iterator[None]:
    """Let functions that a file has no operator for compute by others, inside the context.

    Args:
        format: Of the file.
        static: Whether activations are quantized.
    """
    tf = require("tensorflow", "keras", "to export Keras models")
    with ExitStack() as stack:
        if format == "onnx":
            stack.enter_context(replaced(tf.image, "resize", _by_places(tf)))
        stack.enter_context(replaced(tf.image, "resize", _by_matrices(tf)))
        if format == "tflite":
            for name, function in elementwise_calls(tf).items():
                stack.enter_context(replaced(tf.math, name, function))
        if static:
            stack.enter_context(replaced(tf, "reverse", _by_slices(tf)))
            for calls in (masking_calls, unit_calls):
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


def _by_places(tf: Any) -> Callable[..., Any]:
    """Resize by the nearest values as TensorFlow finds them, where the sizes are known.

    Where the quotient of the sizes is no whole number, the middle of a value may lie between two
    others, and ONNX Runtime rounds the quotient otherwise: 6 rows become 5 of other places.
    """
    resize = tf.image.resize

    def places(size: int, wanted: int) -> Array:
        with tf.init_scope():
            numbers = tf.reshape(tf.range(size), (1, size, 1, 1))
            return np.asarray(resize(numbers, (wanted, 1), "nearest")).reshape(-1)

    def resized(
        images: Any,
        size: Any,
        method: str = "bilinear",
        preserve_aspect_ratio: bool = False,
        antialias: bool = False,
        name: str | None = None,
    ) -> Any:
        images = tf.convert_to_tensor(images)
        wanted, shape = tf.get_static_value(size), images.shape
        known = wanted is not None and shape.rank == 4 and None not in shape[1:3]
        if not known or preserve_aspect_ratio or method != "nearest":
            return resize(images, size, method, preserve_aspect_ratio, antialias, name)
        sizes = list(zip(shape[1:3], (int(one) for one in wanted), strict=True))
        if all(out % given == 0 or given % out == 0 for given, out in sizes):
            return resize(images, size, method, preserve_aspect_ratio, antialias, name)
        for axis, (given, out) in enumerate(sizes, 1):
            if out != given:
                images = tf.gather(images, places(given, out), axis=axis)
        return images

    return resized


def _by_matrices(tf: Any) -> Callable[..., Any]:
    """Resize height, then width, each by a matrix, where the sizes are known.

    Every way to resize is linear and takes the two axes apart; a matrix has one column for each
    row or column of the result.
    """
    resize = tf.image.resize

    def matrix(size: int, wanted: int, method: str, antialias: bool) -> Array:
        with tf.init_scope():
            places = tf.reshape(tf.eye(size), (size, size, 1, 1))
            return np.asarray(resize(places, (wanted, 1), method, antialias=antialias))[:, :, 0, 0]

    def resized(
        images: Any,
        size: Any,
        method: str = "bilinear",
        preserve_aspect_ratio: bool = False,
        antialias: bool = False,
        name: str | None = None,
    ) -> Any:
        images = tf.convert_to_tensor(images)
        wanted, shape = tf.get_static_value(size), images.shape
        known = wanted is not None and shape.rank == 4 and None not in shape[1:3]
        smoothed = antialias and method not in _UNSMOOTHED
        if not known or preserve_aspect_ratio or not (smoothed or method in _SPELLED):
            return resize(images, size, method, preserve_aspect_ratio, antialias, name)
        (height, width), (rows, columns) = shape[1:3], (int(one) for one in wanted)
        y = tf.transpose(tf.cast(images, tf.float32), (0, 2, 3, 1))
        y = tf.matmul(y, matrix(height, rows, method, antialias))
        y = tf.transpose(y, (0, 2, 3, 1))
        y = tf.matmul(y, matrix(width, columns, method, antialias))
        return tf.transpose(y, (0, 2, 3, 1))

    return resized
