"""The hard_sigmoid of Keras 1 and 2, max(0, min(1, 0.2·x + 0.5)), by that of Keras 3.

Keras 3 has a slope of 1/6: its hard_sigmoid of 1.2·x is the old one. So the weights in front of it
are scaled, where a layer has some, and a Rescaling is put in front of an Activation.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .graph import tensor
from .tree import Config, edit, name_of, objects, with_config

_NAME = "hard_sigmoid"
_STEEPER = 1.2
_KERNELS = (
    *(f"{kind}Conv{rank}D" for kind in ("", "Depthwise", "Separable") for rank in (1, 2, 3)),
    *(f"Conv{rank}DTranspose" for rank in (1, 2, 3)),
    "Dense",
    "SimpleRNN",
    "SimpleRNNCell",
)
"""Classes whose kernels and bias stand before their activation."""
_GATES = {"LSTM": (1, 1, 0, 1), "GRU": (1, 1, 0)}
_GATES |= {f"{name}Cell": gates for name, gates in _GATES.items()}
_GATES |= {f"ConvLSTM{rank}D": _GATES["LSTM"] for rank in (1, 2, 3)} | {
    "ConvLSTMCell": (1, 1, 0, 1)
}
"""Classes with a recurrent activation, and which of their gates it is for."""


def steepened(model: Config) -> tuple[Config, frozenset[str]]:
    """Put a Rescaling before each Activation that is a hard_sigmoid.

    Args:
        model: The configuration of a file of Keras 1 or 2, repaired.

    Returns:
        The configuration, and the names of these Activation layers.
    """
    found: set[str] = set()

    def change(item: Config) -> Config | None:
        layers = item["config"].get("layers")
        if not isinstance(layers, list):
            return None
        made = [one for layer in layers for one in _apart(layer)]
        if len(made) == len(layers):
            return None
        found.update(name_of(layer) for layer in layers if len(_apart(layer)) > 1)
        return with_config(item, layers=made)

    return edit(model, change)[0], frozenset(found)


def _apart(layer: Any) -> list[Any]:
    """Return a layer, behind a Rescaling where it is an Activation of the kind."""
    if not isinstance(layer, dict) or layer.get("class_name") != "Activation":
        return [layer]
    if layer["config"].get("activation") != _NAME:
        return [layer]
    name = f"{name_of(layer)}_slope"
    config = {"name": name, "dtype": "float32", "scale": _STEEPER, "offset": 0.0}
    first = {"class_name": "Rescaling", "name": name, "config": config}
    nodes = layer.get("inbound_nodes")
    if nodes is None:  # in a Sequential
        return [first, layer]
    behind = [
        {"args": [tensor([name, call, 0])], "kwargs": {}}
        if isinstance(node, dict)
        else [[name, call, 0, {}]]
        for call, node in enumerate(nodes)
    ]
    return [{**first, "inbound_nodes": nodes}, {**layer, "inbound_nodes": behind}]


def not_steepened(model: Config, apart: frozenset[str]) -> list[str]:
    """Return the layers of the old hard_sigmoid that nothing can be scaled for.

    Args:
        model: The configuration.
        apart: The Activation layers behind a Rescaling.
    """
    return [
        name_of(item)
        for item in objects(model)
        for key, value in item["config"].items()
        if key.endswith("activation")
        and value == _NAME
        and name_of(item) not in apart
        and not (item["class_name"] in _KERNELS and key == "activation")
        and not (item["class_name"] in _GATES and key == "recurrent_activation")
    ]


def scale_weights(model: Any, apart: frozenset[str]) -> str | None:
    """Scale what stands before each hard_sigmoid of a model of Keras 1 or 2.

    Args:
        model: The Keras model with the weights of its file.
        apart: The Activation layers behind a Rescaling.

    Returns:
        What was done; None where there is none.
    """
    from keras import activations

    named = sorted(apart)
    for layer in model._flatten_layers():
        kind = type(layer).__name__
        cell = getattr(layer, "cell", None)
        if cell is not None:
            continue  # the layer of a cell, which comes by itself
        if kind in _KERNELS and layer.activation is activations.hard_sigmoid:
            _scale(layer, _STEEPER)
        elif kind in _GATES and layer.recurrent_activation is activations.hard_sigmoid:
            units = layer.units if hasattr(layer, "units") else layer.filters
            gates = np.where(_GATES[kind], _STEEPER, 1.0)
            _scale(layer, np.repeat(gates, units).astype(np.float32))
        else:
            continue
        named.append(layer.name)
    if not named:
        return None
    return f"gave hard_sigmoid the slope of before Keras 3, 0.2, in {', '.join(named)}"


def _scale(layer: Any, factors: Any) -> None:
    """Scale the output channels of a layer's last kernels, and its bias."""
    last = "pointwise_kernel" if hasattr(layer, "pointwise_kernel") else "kernel"
    for name in (last, "recurrent_kernel", "bias"):
        weight = getattr(layer, name, None)
        if weight is not None:
            weight.assign(np.asarray(weight) * factors)
