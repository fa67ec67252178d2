"""Putting the weights of a legacy .h5 file into the model that was rebuilt from it.

Keras' own reader goes by the order of the layers and knows neither Keras 1 nor Theano. This one
goes by their names.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from dsconvert.base.errors import InputError, require
from dsconvert.base.keras_weights import take_in

from .container import Source

if TYPE_CHECKING:
    import h5py
    import keras

Array = np.ndarray[Any, Any]
_UNREADABLE = (AttributeError, KeyError, OSError, RuntimeError, TypeError, ValueError)
"""What h5py and numpy raise over a file that a child process could read, yet is no Keras file."""
_CONVOLUTIONS = ("Conv1D", "Conv2D", "Conv3D", "Conv2DTranspose")


def restore(
    model: keras.Model, source: Source, renamed: Mapping[str, str] | None = None
) -> str | None:
    """Set every weight of ``model`` from the file.

    Args:
        model: The model.
        source: The file.
        renamed: New names of layers, by those in the file.

    Returns:
        A sentence where kernels had to be mirrored, or None.

    Raises:
        InputError: If the file's weights are not those of its architecture, or are damaged.
    """
    h5py = require("h5py", "keras", "to read .h5 files")
    leaves = list(model._flatten_layers(include_self=False, recursive=True))
    owners = {
        id(v): layer for layer in leaves if not hasattr(layer, "layers") for v in layer.weights
    }
    try:
        with h5py.File(source.path, "r") as file:
            mirrored = _assign_all(
                model, source, _saved(file["model_weights"], renamed or {}), owners
            )
    except _UNREADABLE as error:
        raise _mismatch(source, f"they cannot be read ({error})") from error
    take_in(model)
    kernels = f"{mirrored} kernel{'s' if mirrored > 1 else ''}"
    return f"mirrored {kernels}, which Theano stores the other way" if mirrored else None


def _assign_all(
    model: keras.Model,
    source: Source,
    saved: dict[str, list[tuple[str, h5py.Dataset]]],
    owners: dict[int, keras.Layer],
) -> int:
    """Set every weight; shapes are compared before values are read.

    Returns:
        How many kernels were mirrored.
    """
    mirrored = 0
    layers = {layer.name: layer for layer in model.layers if layer.weights}
    if saved.keys() != layers.keys():
        names = ", ".join(sorted(saved.keys() ^ layers.keys()))
        raise _mismatch(source, f"only one of the two has weights for: {names}")
    for name, layer in layers.items():
        for variable, dataset in _matched(source, layer, saved[name]):
            owner = owners.get(id(variable), layer)
            if dataset.size != math.prod(variable.shape):
                raise _misshapen(source, variable, dataset.shape)
            value = np.asarray(dataset)
            if source.keras_version.startswith("1"):
                value = _from_keras1(owner, value)
            if source.backend == "theano" and _is_kernel(owner, value):
                value, mirrored = _mirrored(value), mirrored + 1
            if tuple(variable.shape) != value.shape:
                raise _misshapen(source, variable, value.shape)
            variable.assign(value)
    return mirrored


def _saved(
    group: h5py.Group, renamed: Mapping[str, str]
) -> dict[str, list[tuple[str, h5py.Dataset]]]:
    """List each layer's weights, not read yet, in the order of the file."""
    saved = {}
    for layer in _names(group, "layer_names"):
        weights = [(name, group[layer][name]) for name in _names(group[layer], "weight_names")]
        if weights:
            saved[renamed.get(layer, layer)] = weights
    return saved


def _names(group: h5py.Group, key: str) -> list[str]:
    """Return a list of names; HDF5 limits the size of an attribute, so long lists come in parts."""
    if key in group.attrs:
        parts = [group.attrs[key]]
    else:
        count = sum(name.startswith(key) for name in group.attrs)
        parts = [group.attrs[f"{key}{i}"] for i in range(count)]
    return [n.decode() if isinstance(n, bytes) else str(n) for part in parts for n in part]


def _matched(
    source: Source, layer: keras.Layer, saved: list[tuple[str, h5py.Dataset]]
) -> list[tuple[Any, h5py.Dataset]]:
    """Each variable of a layer with its value, by name where the names agree, else by order."""
    variables = layer.trainable_weights + layer.non_trainable_weights  # the order of the file
    if len(variables) != len(saved):
        raise _mismatch(source, f"{layer.name} has {len(variables)} weights, the file {len(saved)}")
    by_name = {_short(name): value for name, value in saved}
    names = [_short(variable.path) for variable in variables]
    if len(by_name) == len(saved) and by_name.keys() == set(names):
        return [(variable, by_name[name]) for variable, name in zip(variables, names, strict=True)]
    return [(variable, value) for variable, (_, value) in zip(variables, saved, strict=True)]


def _short(path: str) -> str:
    """``model/conv/depthwise_kernel:0`` -> ``conv/kernel``, as Keras 3 calls it."""
    name = "/".join(path.removesuffix(":0").split("/")[-2:])
    return name.replace("/depthwise_kernel", "/kernel")


def _is_kernel(layer: keras.Layer, value: Array) -> bool:
    return type(layer).__name__ in _CONVOLUTIONS and value.ndim > 2


def _from_keras1(layer: keras.Layer, value: Array) -> Array:
    """One weight in the layout of Keras 2: (*window, in, out), transposed (*window, out, in)."""
    match type(layer).__name__:
        case "Conv1D" if value.ndim == 4:
            if value.shape[1] != 1:  # before Keras 1.2: (out, in, window, 1)
                value = value.transpose(2, 3, 1, 0)
            return value[:, 0]
        case "Conv2DTranspose" if value.ndim == 4:
            return value.transpose(0, 1, 3, 2)
    return value


def _mirrored(kernel: Array) -> Array:
    """Return the kernel turned around in all its window axes, which come first."""
    return np.flip(kernel, axis=tuple(range(kernel.ndim - 2)))


def _misshapen(source: Source, variable: Any, found: tuple[int, ...]) -> InputError:
    return _mismatch(source, f"{variable.path} is {tuple(variable.shape)}, in the file {found}")


def _mismatch(source: Source, what: str) -> InputError:
    return InputError(
        f"{source.path}: its weights do not fit its architecture: {what}.",
        "Save the model again where it was made: model.save('model.keras').",
        code="weights-do-not-fit",
    )
