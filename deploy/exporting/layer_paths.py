"""The Keras layers that TensorFlow's paths of operations speak of."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any


def layers_in_paths(paths: Iterable[str], model: Any) -> list[str]:
    """Return the names of the layers that paths go through, each once, in quotes.

    TensorFlow writes paths such as ``functional_1/my_layer_1/Erf``, where Keras counts up the
    names.

    Args:
        paths: The paths.
        model: The `keras.Model` that was traced.
    """
    known = _names(model)
    found = []
    for path in paths:
        for part in reversed(path.split("/")):
            name = part if part in known else re.sub(r"_\d+$", "", part)
            if name in known:
                found.append(repr(name))
                break
    return list(dict.fromkeys(found))


def told_layers(layers: list[str]) -> str:
    """Say where something is: ``, in the layers 'a', 'b'``; nothing where no layer is known."""
    return f", in the layer{'s' * (len(layers) > 1)} {', '.join(layers)}" if layers else ""


def layers_of_integers(model: Any) -> list[str]:
    """Return the names of layers that `keras.Model.quantize` made compute with integers."""
    found = []
    for layer in model.layers:
        if getattr(layer, "layers", None):
            found += layers_of_integers(layer)
        elif getattr(layer, "quantization_mode", None):
            found.append(repr(layer.name))
    return list(dict.fromkeys(found))


def _names(model: Any) -> set[str]:
    """Return the names of all layers within a model that hold no layers themselves."""
    names: set[str] = set()
    for layer in model.layers:
        inner = getattr(layer, "layers", None)
        names |= _names(layer) if inner else {layer.name}
    return names
