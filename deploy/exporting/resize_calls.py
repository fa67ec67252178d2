"""`tf.image.resize` spelled out where no operator of a format computes as it does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dsconvert.base.predictor import Array

_SPELLED = ("bicubic", "area", "lanczos3", "lanczos5", "gaussian", "mitchellcubic")
"""Ways to resize that no format has an operator for. That of ONNX for cubic filters is 1e-3 away,
and ONNX Runtime refuses it behind a Transpose that it has moved."""
_UNSMOOTHED = ("nearest", "area")
"""Ways in which TensorFlow does not smooth beforehand, though it is asked to."""

_Size = tuple[int, int]
_Drawing = Callable[[Any, _Size, _Size, str, bool], Any]
"""Of images (n, H, W, C), their size, the wanted one, the method, and whether to smooth; None where
TensorFlow's own operator is as good."""


def by_places(tf: Any) -> Callable[..., Any]:
    """Resize by the nearest values as TensorFlow finds them, where the sizes are known.

    Where the quotient of the sizes is no whole number, the middle of a value may lie between two
    others, and ONNX Runtime rounds the quotient otherwise: 6 rows become 5 of other places.

    Args:
        tf: TensorFlow; its function of now is taken where this one does not apply.
    """
    resize = tf.image.resize

    def places(size: int, wanted: int) -> Array:
        with tf.init_scope():
            numbers = tf.reshape(tf.range(size), (1, size, 1, 1))
            return np.asarray(resize(numbers, (wanted, 1), "nearest")).reshape(-1)

    def draw(images: Any, size: _Size, wanted: _Size, method: str, antialias: bool) -> Any:
        del antialias
        sizes = list(zip(size, wanted, strict=True))
        whole = all(out % given == 0 or given % out == 0 for given, out in sizes)
        if method != "nearest" or whole:
            return None
        for axis, (given, out) in enumerate(sizes, 1):
            if out != given:
                images = tf.gather(images, places(given, out), axis=axis)
        return images

    return _where_sizes_are_known(tf, draw)


def by_matrices(tf: Any) -> Callable[..., Any]:
    """Resize height, then width, each by a matrix, where the sizes are known.

    Every way to resize is linear and takes the two axes apart; a matrix has one column for each
    row or column of the result.

    Args:
        tf: TensorFlow; its function of now is taken where this one does not apply.
    """
    resize = tf.image.resize

    def matrix(size: int, wanted: int, method: str, antialias: bool) -> Array:
        with tf.init_scope():
            places = tf.reshape(tf.eye(size), (size, size, 1, 1))
            return np.asarray(resize(places, (wanted, 1), method, antialias=antialias))[:, :, 0, 0]

    def draw(images: Any, size: _Size, wanted: _Size, method: str, antialias: bool) -> Any:
        smoothed = antialias and method not in _UNSMOOTHED
        if not smoothed and method not in _SPELLED:
            return None
        y = tf.transpose(tf.cast(images, tf.float32), (0, 2, 3, 1))
        y = tf.matmul(y, matrix(size[0], wanted[0], method, antialias))
        y = tf.transpose(y, (0, 2, 3, 1))
        y = tf.matmul(y, matrix(size[1], wanted[1], method, antialias))
        return tf.transpose(y, (0, 2, 3, 1))

    return _where_sizes_are_known(tf, draw)


def _where_sizes_are_known(tf: Any, draw: _Drawing) -> Callable[..., Any]:
    """Return a function with the arguments of `tf.image.resize`."""
    resize = tf.image.resize

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
        if known and not preserve_aspect_ratio:
            (height, width), (rows, columns) = shape[1:3], wanted
            drawn = draw(images, (height, width), (int(rows), int(columns)), method, antialias)
            if drawn is not None:
                return drawn
        return resize(images, size, method, preserve_aspect_ratio, antialias, name)

    return resized
