"""Layers whose names no graph of TensorFlow takes: they are exported under other names.

Keras takes any name without a slash; a graph takes letters, digits, "_", "." and "-" wherever it
stands. The names of inputs are free, but for the keywords of Python.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable
from itertools import islice
from typing import Any

from dsconvert.base.keras_weights import give_weights

_TOLD = 3
_OTHERS = re.compile(r"[^A-Za-z0-9_.-]")


def with_plain_names(model: Any) -> tuple[Any, str]:
    """Return a model, copied if any layer's name has to change.

    Args:
        model: A functional Keras model; inputs, and layers inside other layers, keep their names.

    Returns:
        The model with the same weights, and a sentence on what was changed; empty for nothing.
    """
    import keras

    names = [layer.name for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]
    plain = dict(zip(names, unique(map(_plain, names)), strict=True))
    changed = {name: new for name, new in plain.items() if name != new}
    if not changed:
        return model, ""

    def copy(layer: Any) -> Any:
        config = layer.get_config()
        return type(layer).from_config(config | {"name": plain[layer.name]})

    clone = keras.models.clone_model(model, clone_function=copy)
    give_weights(clone, model.get_weights())
    told = ", ".join(f"{name!r} is {new}" for name, new in islice(changed.items(), _TOLD))
    more = ", …" if len(changed) > _TOLD else ""
    return clone, f"layers whose names no graph takes have others in the file: {told}{more}"


def _plain(name: str) -> str:
    """Return a name that a graph takes; the same if it is one."""
    found = _OTHERS.sub("_", name)
    if not found[:1].isalnum():
        found = f"layer{found}"
    return found


def without_keyword(name: str) -> str:
    """Return the name of an input; another if it is a keyword, which TensorFlow refuses there."""
    return f"{name}_" if keyword.iskeyword(name) else name


def unique(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names with ``_1``, ``_2``… appended to repeated ones."""
    taken: list[str] = []
    for name in names:
        candidates = (name if i == 0 else f"{name}_{i}" for i in range(len(taken) + 1))
        taken.append(next(candidate for candidate in candidates if candidate not in taken))
    return tuple(taken)
