"""Weights that a file keeps by the place of their object in the model, not by a layer's name.

Archives of Keras 2.12 and 2.13 and SavedModels do so. A layer is found by its place among the
layers of its model, its variables by the attributes that lead to them, as ``cell/kernel``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from dsconvert.base.units import first_few

from .tree import MODEL_CLASSES, Config, is_object, name_of


@contextmanager
def in_file_order(model: Any, config: Config) -> Iterator[bool]:
    """Let a model list its layers in the order of its file; afterwards in its own again.

    Keras sorts them by their depth. That is another one where a repair has taken layers away or
    added some, and two layers of one kind would get each other's weights.

    Args:
        model: The model.
        config: Its configuration as the file has it, with the names that its layers have now.

    Yields:
        Whether that is another order.
    """
    kept: list[tuple[Any, list[Any]]] = []

    def sort(model: Any, config: Config) -> bool:
        held = config["config"] if isinstance(config["config"], dict) else {}  # a list in Keras 1
        layers = [one for one in held.get("layers") or [] if is_object(one)]
        places = {name_of(layer): place for place, layer in enumerate(layers)}
        inner = {layer.name: layer for layer in getattr(model, "layers", [])}
        others = [
            sort(inner[name_of(layer)], layer)
            for layer in layers
            if layer["class_name"] in MODEL_CLASSES and name_of(layer) in inner
        ]
        if not isinstance(getattr(model, "_operations", None), list):
            return any(others)
        before = [layer.name for layer in layers_with_weights(model)]
        kept.append((model, model._operations))
        model._operations = sorted(
            model._operations, key=lambda one: places.get(one.name, len(places))
        )
        return any(others) or before != [layer.name for layer in layers_with_weights(model)]

    try:
        yield sort(model, config)
    finally:
        for one, operations in kept:
            one._operations = operations


def layers_with_weights(model: Any) -> list[Any]:
    """List the layers of a model that have weights, in order; nested models count as one."""
    return [layer for layer in model.layers if layer.weights]


def parts_of(
    layer: Any, listed: Callable[[Sequence[Any]], Sequence[str]]
) -> Iterator[tuple[str, Any]]:
    """Yield the layers that a layer holds, by attribute: ``cell``, ``cells/0``, ``_query_dense``.

    Args:
        layer: The layer.
        listed: Names the members of a list of layers.
    """
    held = {id(part) for part in layer._layers}
    for name, value in vars(layer).items():
        if id(value) in held:
            held.discard(id(value))
            yield name, value
        elif isinstance(value, list | tuple) and name != "_layers":
            members = [part for part in value if id(part) in held]
            held -= set(map(id, members))
            for inner, part in zip(listed(members), members, strict=True):
                yield f"{name}/{inner}", part


def numbered(parts: Sequence[Any]) -> list[str]:
    """Name the members of a list by their places in it."""
    return [str(number) for number in range(len(parts))]


def own_variables(layer: Any) -> list[Any]:
    """List a layer's own variables in the order in which Keras stores them."""
    return [
        variable
        for variable in (*layer._trainable_variables, *layer._non_trainable_variables)
        if "seed" not in variable.path.split("/")[-1]
    ]


def variables_by_path(layer: Any) -> dict[str, Any]:
    """Name every variable of a layer by the attributes that lead to it, as Keras 2 called them.

    Those of a model's layers are ``layer_with_weights-0/kernel`` and so on.
    """
    if hasattr(layer, "layers"):
        return {
            f"layer_with_weights-{number}/{path}": variable
            for number, inner in enumerate(layers_with_weights(layer))
            for path, variable in variables_by_path(inner).items()
        }
    found = {}
    for variable in own_variables(layer):
        name = variable.name
        if name == "kernel" and type(layer).__name__.startswith("DepthwiseConv"):
            name = "depthwise_kernel"
        found[name] = variable
    for name, part in parts_of(layer, numbered):
        found |= {f"{name}/{path}": v for path, v in variables_by_path(part).items()}
    return found


class Misfit(Exception):
    """A file's weights are not those of its model; the text says where."""


def check_complete(model: Any, assigned: set[int]) -> None:
    """See that every weight of a model got a value, those inside of any layer too.

    Args:
        model: The model.
        assigned: The variables that did, by `id`.

    Raises:
        Misfit: With those that did not.
    """
    random = "seed_generator"
    left = [v.path for v in model.weights if id(v) not in assigned and random not in v.path]
    if left:
        raise Misfit(f"nothing was found for {first_few(left)}")


def assign(layer: str, variables: Mapping[str, Any], values: Mapping[str, Any]) -> set[int]:
    """Give variables their values by path.

    Returns:
        The variables, by `id`.

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
    return {id(variable) for variable in variables.values()}
