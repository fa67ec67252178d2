"""The one layer in which the two forms of a network differ."""

from __future__ import annotations

from typing import Any


def convolution(filters: int, size: int, name: str, *, separable: bool, **options: Any) -> Any:
    """Return a convolution with k×k kernels, or the depthwise + pointwise pair in its place.

    Parameters from C to N channels, with a bias: k²·C·N + N, and k²·C + C·N + N for the pair,
    whose depthwise half has no bias in Keras' SeparableConv2D.
    """
    from keras import layers

    kind = layers.SeparableConv2D if separable else layers.Conv2D
    return kind(filters, size, padding="same", name=name, **options)
