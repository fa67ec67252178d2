"""Weights that a file keeps by the place of their object in the model, not by a layer's name.

Archives of Keras 2.12 and 2.13 and SavedModels do so. A layer is found by its place among the
layers of its model, its variables by the attributes that lead to them, as ``cell/kernel``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_PARTS = ("cell", "layer", "forward_layer", "backward_layer")
"""Attributes under which layers hold other layers."""


def layers_with_weights(model: Any) -> list[Any]:
    """List the layers of a model that have weights, in order; nested models count as one."""
    return [layer for layer in model.layers if layer.weights]


def parts_of(layer: Any) -> Iterator[tuple[str, Any]]:
    """Yield the layers that a wrapper or a recurrent layer holds, by attribute."""
    for name in _PARTS:
        part = getattr(layer, name, None)
        if part is not None and hasattr(part, "weights"):
            yield name, part


def own_variables(layer: Any) -> list[Any]:
    """List a layer's own variables in the order in which Keras stores them."""
    return [
        variable
        for variable in (*layer._trainable_variables, *layer._non_trainable_variables)
        if "seed" not in variable.path.split("/")[-1]
    ]


def variables_by_path(layer: Any) -> dict[str, Any]:
    """Name every variable of a layer by the attributes that lead to it, as Keras 2 called them."""
    found = {}
    for variable in own_variables(layer):
        name = variable.name
        if name == "kernel" and type(layer).__name__.startswith("DepthwiseConv"):
            name = "depthwise_kernel"
        found[name] = variable
    for name, part in parts_of(layer):
        found |= {f"{name}/{path}": v for path, v in variables_by_path(part).items()}
    return found


class Misfit(Exception):
    """A file's weights are not those of its model; the text says where."""


def assign(layer: str, variables: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Give variables their values by path.

    Raises:
        Misfit: If the paths or the shapes of the two differ. Nothing is assigned then.
    """
    if variables.keys() != values.keys():
        names = ", ".join(sorted(variables.keys() ^ values.keys()))
        raise Misfit(f"{layer}: only one of the two has {names}")
    for path, variable in variables.items():
        if tuple(variable.shape) != tuple(values[path].shape):
            raise Misfit(
                f"{layer}/{path} is {tuple(variable.shape)}, in the file "
                f"{tuple(values[path].shape)}"
            )
    for path, variable in variables.items():
        variable.assign(values[path])
