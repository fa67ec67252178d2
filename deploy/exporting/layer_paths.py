"""The Keras layers that TensorFlow's paths of operations speak of."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from dsconvert.formats.quantization import Format
from dsconvert.models.evaluation.keras_predictor import layers_of_integers, leaf_layers

_FLOAT = "float8"
"""The mode of quantization that makes no integers."""


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


def told_integers(model: Any, format: Format) -> tuple[str, str]:
    """Say which layers of `keras.Model.quantize` a format does not hold, and what helps.

    Args:
        model: The `keras.Model`.
        format: The format that does not hold it.

    Returns:
        What is wrong, and what to do; two empty texts where nothing was quantized.
    """
    layers = layers_of_integers(model)
    if not layers:
        return "", ""
    modes = {getattr(layer, "quantization_mode", None) for layer in leaf_layers(model)} - {None}
    kind = "8-bit floats" if modes == {_FLOAT} else "integers"
    hint = "Export the float model that it was made from, with --quantize int8 for integers"
    other = "; or this one to .onnx." if format == "tflite" and _FLOAT not in modes else "."
    return (
        f"it computes with {kind}{told_layers(layers)}, after keras.Model.quantize.",
        hint + other,
    )
