"""The Keras layers that TensorFlow's paths of operations speak of."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from dsconvert.models.evaluation.keras_predictor import leaf_layers


def layers_in_paths(paths: Iterable[str], model: Any) -> list[str]:
    """Return the names of the layers that paths go through, each once, in quotes.

    TensorFlow writes paths such as ``functional_1/my_layer_1/Erf``, where Keras counts up the
    names.

    Args:
        paths: The paths.
        model: The `keras.Model` that was traced.
    """
    known = {layer.name for layer in leaf_layers(model)}
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
