"""What a Keras model consists of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def parts_of(model: Any) -> Iterator[Any]:
    """Yield all layers, those inside others too, and operations that are no layers, each once.

    Args:
        model: A `keras.Model`.

    Example:
        >>> import keras
        >>> image = keras.Input((4,))
        >>> model = keras.Model(image, keras.layers.Dense(2)(image) * 2.0)
        >>> [type(part).__name__ for part in parts_of(model)][-2:]
        ['Dense', 'Multiply']
    """
    found = {id(layer): layer for layer in model._flatten_layers()}
    for layer in list(found.values()):
        found.update((id(one), one) for one in getattr(layer, "operations", ()))
    yield from found.values()
