"""Layer names that Keras 2 allowed and Keras 3 refuses: those with a slash."""

from __future__ import annotations

from typing import Any

from dsconvert.base.units import first_few

from .graph import is_tensor
from .tree import Config, edit, is_object, name_of, with_config

_ENDS = ("input_layers", "output_layers")


def without_slashes(model: Config) -> tuple[Config, dict[str, str], str | None]:
    """Rename layers such as ``conv1/conv`` to ``conv1_conv``, and all references to them.

    A name that is taken gets a number. Names count within their own model.

    Returns:
        The configuration, the new names of the outermost model's layers by their old ones, and a
        sentence where something was renamed.
    """
    shown: list[str] = []
    last: dict[str, str] = {}

    def change(item: Config) -> Config | None:
        nonlocal last
        layers = item["config"].get("layers")
        if not isinstance(layers, list) or not all(map(is_object, layers)):
            return None
        last = _free_names([name_of(layer) for layer in layers])
        if not last:
            return None
        shown.extend(f"{old} to {new}" for old, new in last.items())
        renamed = [_renamed_layer(layer, last) for layer in layers]
        ends = {key: _renamed(item["config"][key], last) for key in _ENDS if key in item["config"]}
        return with_config(item, layers=renamed, **ends)

    model, _ = edit(model, change)  # the outermost model is changed last
    # The model, and layers inside others (TimeDistributed), are left: nothing refers to them.
    model, named = edit(model, _plain)
    shown.extend(f"{name_of(item)} to {_without(name_of(item))}" for item in named)
    told = f"renamed {first_few(shown)}: Keras 3 has no slashes in names"
    return model, last, told if shown else None


def _plain(item: Config) -> Config | None:
    name = item["config"].get("name")
    if not isinstance(name, str) or "/" not in name:
        return None
    return with_config(item, name=_without(name))


def _without(name: str) -> str:
    return name.replace("/", "_")


def _free_names(names: list[str]) -> dict[str, str]:
    taken, found = set(names), {}
    for name in names:
        if "/" not in name:
            continue
        plain = new = _without(name)
        number = 1
        while new in taken:
            number += 1
            new = f"{plain}_{number}"
        taken.add(new)
        found[name] = new
    return found


def _renamed_layer(layer: Config, names: dict[str, str]) -> Config:
    name = name_of(layer)
    if name in names:
        layer = with_config({**layer, "name": names[name]}, name=names[name])
    nodes = layer.get("inbound_nodes")
    return layer if nodes is None else {**layer, "inbound_nodes": _renamed(nodes, names)}


def _renamed(value: Any, names: dict[str, str]) -> Any:
    """Return a copy in which references to tensors name the layers anew."""
    if is_tensor(value):
        return [names.get(value[0], value[0]), *(_renamed(rest, names) for rest in value[1:])]
    if isinstance(value, list):
        return [_renamed(child, names) for child in value]
    if isinstance(value, dict):
        return {key: _renamed(child, names) for key, child in value.items()}
    return value
