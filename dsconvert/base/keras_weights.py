"""Weights given to Keras layers and models, with what the layers compute of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .predictor import Array


def give_weights(target: Any, values: Sequence[Array]) -> None:
    """Set the weights of a layer or model, as `set_weights` does, and let it take them in.

    An adapted Normalization divides by constants that it computed of its weights when it was built
    or loaded: `set_weights` alone leaves the constants of a copy at mean 0 and variance 1.

    Args:
        target: A `keras.Layer` or `keras.Model`.
        values: One array per weight.
    """
    target.set_weights(values)
    take_in(target)


def take_in(target: Any) -> None:
    """Let the layers of a model compute anew what they keep of their weights."""
    for layer in target._flatten_layers():
        if hasattr(layer, "finalize_state") and layer.weights:
            layer.finalize_state()
