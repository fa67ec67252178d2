"""Functions of `keras.ops` in .h5 files of Keras 3, which Keras writes and cannot read.

Layers and operations are told by their class alone there: Keras looks for all of them among the
layers, finds none of most names, and another thing of some: layers.Multiply takes no numbers.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from dsconvert.base.errors import require

from .tree import Config, counted, edit

_PLACES = ("numpy", "nn", "math", "core", "linalg", "image", "einops")
"""Modules of `keras.src.ops`; no two of them have a class of one name."""


def placed_operations(model: Config) -> tuple[Config, str | None]:
    """Say of each operation where Keras has it, as .keras files do.

    Args:
        model: The configuration of an .h5 file of Keras 3.

    Returns:
        The new configuration, and what was done in words.
    """

    def change(item: Config) -> Config | None:
        if "inbound_nodes" not in item or "module" in item or "trainable" in item["config"]:
            return None  # what every layer says of itself, and no operation
        place = _place(item["class_name"])
        if place is None:
            return None
        return {**item, "module": place, "registered_name": item["class_name"]}

    model, changed = edit(model, change)
    told = f"looked in keras.ops for {counted(changed, 'operation')}" if changed else None
    return model, told


def _place(name: str) -> str | None:
    """Return the module that has an operation of this class; None for none."""
    operation: Any = require("keras", "keras", "to load Keras models").Operation
    for place in _PLACES:
        found = getattr(import_module(f"keras.src.ops.{place}"), name, None)
        if isinstance(found, type) and issubclass(found, operation):
            return f"keras.src.ops.{place}"
    return None
