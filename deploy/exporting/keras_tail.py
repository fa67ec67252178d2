"""The tail of a Keras model, and the model without it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from dsconvert.base.errors import require
from dsconvert.base.predictor import Array
from dsconvert.base.quiet import captured

from .output_tail import SAMPLES, OutputTail, find_tail
from .plain_names import unique
from .rebuilding import CutOperator, keras_step, told_rebuilding


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
    called = dict(zip([key for key, _ in kept], unique(name for _, name in kept), strict=True))
    gone = {str(i): names[i] for i in range(len(outputs)) if str(i) in tail.mixed}

    def step_of(key: str) -> CutOperator:
        tensor = tensors[key]
        operation, node, _ = tensor._keras_history
        given = operation._inbound_nodes[node].arguments
        flat = keras.tree.flatten((given.args, given.kwargs))
        arrays = [x for x in flat if hasattr(x, "shape") and not keras.utils.is_keras_tensor(x)]
        return keras_step(operation, read_by(key), len(tensor.shape), plain=not arrays)

    told = told_rebuilding(gone, step_of, called)
    return made, tuple(called.values()), replace(tail, rebuilding=told)
