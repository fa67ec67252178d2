"""Strided 1×1 convolutions of few channels, computed by a slice and a convolution without strides.

TensorFlow's oneDNN kernel for the gradient of such a kernel (Conv2DBackpropFilter) writes beyond
its memory where it has fewer input channels than a vector register has lanes, and the process dies
or, worse, goes on. TensorFlow 2.16 to 2.20 were seen to, on AVX-512.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_LANES = 16
"""Input channels from which the kernel is sound: the float32 lanes of AVX-512."""


@contextmanager
def sliced_points() -> Iterator[None]:
    """Let convolutions that are traced inside the context take the pixels they read by a slice.

    A 1×1 kernel of stride s reads the pixels 0, s, 2s, …, with either padding, and no others.
    """
    import tensorflow as tf

    convolution = tf.nn.convolution

    def sliced(
        input: Any, filters: Any, strides: Any = None, padding: str = "VALID",
        data_format: str | None = None, dilations: Any = None, name: str | None = None,
    ) -> Any:  # fmt: skip
        *window, channels, _ = filters.shape
        steps = [strides] * len(window) if isinstance(strides, int) else list(strides or [1])
        if set(window) == {1} and max(steps) > 1 and channels is not None and channels < _LANES:
            inner = [slice(None, None, step) for step in steps]
            first = data_format is not None and data_format.startswith("NC")
            # an ellipsis for the samples, and for the channels in front
            input = input[(..., *inner)] if first else input[(..., *inner, slice(None))]
            strides = 1
        return convolution(input, filters, strides, padding, data_format, dilations, name)

    tf.nn.convolution = sliced
    try:
        yield
    finally:
        tf.nn.convolution = convolution
