"""The tail of a Keras model, and the model without it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dsconvert.base.errors import require
from dsconvert.base.predictor import Array
from dsconvert.base.quiet import captured

from .output_tail import SAMPLES, OutputTail, find_tail


def without_tail(
    model: Any, samples: Sequence[Array], names: Sequence[str]
) -> tuple[Any, tuple[str, ...], OutputTail]:
    """Make the model whose mixed outputs are replaced by what its tail reads.

    Args:
        model: A functional or sequential `keras.Model`; it is not changed.
        samples: One array per input, (n, ...).
        names: What its outputs are called.

    Returns:
        The model, the names of its outputs, and the tail; the model itself where no tensor mixes
        scales, or where a model within it makes the output.
    """
    keras = require("keras", "keras", "to export Keras models")
    outputs = keras.tree.flatten(model.outputs)
    tensors = {str(i): tensor for i, tensor in enumerate(outputs)}
    keys = {id(tensor): key for key, tensor in tensors.items()}

    def key_of(tensor: Any) -> str:
        if id(tensor) not in keys:
            keys[id(tensor)] = str(len(tensors))
            tensors[keys[id(tensor)]] = tensor
        return keys[id(tensor)]

    def read_by(key: str) -> list[str]:
        operation, node, _ = tensors[key]._keras_history
        if isinstance(operation, keras.layers.InputLayer | keras.Model):
            return []
        return [key_of(tensor) for tensor in operation._inbound_nodes[node].input_tensors]

    def values(wanted: Sequence[str]) -> Mapping[str, Array]:
        part = keras.Model(model.inputs, [tensors[key] for key in wanted])
        count = min(len(samples[0]), SAMPLES)
        arrays = [
            np.asarray(array[:count], tensor.dtype)
            for array, tensor in zip(samples, model.inputs, strict=True)
        ]
        with captured():
            found = keras.tree.flatten(part(arrays, training=False))
        return {key: np.asarray(value) for key, value in zip(wanted, found, strict=True)}

    tail = find_tail([str(i) for i in range(len(outputs))], read_by, values)
    if not tail.cuts or any(not read_by(key) for key in tail.mixed):
        return model, tuple(names), OutputTail()
    kept = [(str(i), names[i]) for i in range(len(outputs)) if str(i) not in tail.mixed]
    kept += [(key, tensors[key]._keras_history[0].name) for key in tail.cuts]
    made = keras.Model(model.inputs, [tensors[key] for key, _ in kept])
    return made, tuple(name for _, name in kept), tail
