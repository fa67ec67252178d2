"""The weights of .keras archives of Keras 2.12 and 2.13, whose names no later version knows.

Those versions numbered what they met by class while they walked the checkpoint dependencies, in
which each layer with weights stands twice: ``conv2d``, ``conv2d_2``, ``conv2d_4``. The numbers are
in the order of the layers of that class; that is all that is used of them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .object_weights import (
    Misfit,
    assign,
    check_complete,
    layers_with_weights,
    own_variables,
    parts_of,
)

_ROOT = "_layer_checkpoint_dependencies"


def is_old_archive(weights: Path) -> bool:
    """Tell whether an archive's weights have the names of Keras 2.12 and 2.13."""
    import h5py

    with h5py.File(weights, "r") as file:
        return _ROOT in file


def restore_archive(model: Any, weights: Path) -> None:
    """Set every weight of a model from such a file.

    Raises:
        Misfit: If the file's weights are not those of the model.
    """
    import h5py

    with h5py.File(weights, "r") as file:
        check_complete(model, _restore_model(model, file, model.name))


def _restore_model(model: Any, group: Any, where: str) -> set[int]:
    if _ROOT not in group:
        raise Misfit(f"{where} has no weights in the file")
    stored: dict[str, list[str]] = {}
    for name in sorted(group[_ROOT], key=lambda name: _numbered(name)[1]):
        if _holds_values(group[_ROOT][name]):
            stored.setdefault(_numbered(name)[0], []).append(name)
    layers: dict[str, list[Any]] = {}
    for layer in layers_with_weights(model):
        layers.setdefault(_snake(layer), []).append(layer)
    expected, there = ({k: len(v) for k, v in found.items()} for found in (layers, stored))
    if expected != there:
        raise Misfit(f"{where} has the layers {expected}, the file {there}")
    done: set[int] = set()
    for base, found in layers.items():
        for layer, name in zip(found, stored[base], strict=True):
            inner = group[_ROOT][name]
            restore = _restore_model if hasattr(layer, "layers") else _restore_layer
            done |= restore(layer, inner, f"{where}/{layer.name}")
    return done


def _restore_layer(layer: Any, group: Any, where: str) -> set[int]:
    variables = {str(i): variable for i, variable in enumerate(own_variables(layer))}
    values = {name: np.asarray(value) for name, value in group.get("vars", {}).items()}
    done = assign(where, variables, values)
    for name, part in parts_of(layer, _by_class):
        if part.weights:
            if name not in group:
                raise Misfit(f"{where} has no weights of its {name} in the file")
            restore = _restore_model if hasattr(part, "layers") else _restore_layer
            done |= restore(part, group[name], f"{where}/{name}")
    return done


def _by_class(parts: Sequence[Any]) -> list[str]:
    """Name the layers of a list: by their class, with a number from the second of it on."""
    names: list[str] = []
    for part in parts:
        base = _snake(part)
        count = sum(_numbered(name)[0] == _numbered(base)[0] for name in names)
        names.append(f"{base}_{count}" if count else base)
    return names


def _holds_values(group: Any) -> bool:
    import h5py

    return any(
        isinstance(item, h5py.Dataset) or (isinstance(item, h5py.Group) and _holds_values(item))
        for item in group.values()
    )


def _numbered(name: str) -> tuple[str, int]:
    match = re.fullmatch(r"(.*?)(?:_(\d+))?", name)
    assert match, "every text matches"
    return match[1], int(match[2] or 0)


def _snake(layer: Any) -> str:
    """``Conv2D`` as ``conv2d``, ``ConvLSTM2D`` as ``conv_lstm2d``, as Keras writes them."""
    text = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", type(layer).__name__)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", text).lower()
