"""Files of a newer Keras than the installed one: keys that it added and that say nothing."""

from __future__ import annotations

import inspect
from typing import Any

from .tree import Config, edit, with_config


def newer_keys(model: Config) -> tuple[Config, str | None]:
    """Drop keys that the installed Keras does not know, where they change nothing.

    Keras writes every argument of a class into a file. Each release adds arguments (3.15: the axes
    of GlorotUniform), and an older one refuses the whole file for them. Initializers shape
    training only, thus any of their new keys goes; of a layer only those that are None: not used.
    What it does not know otherwise stays, and Keras refuses it.

    Args:
        model: The configuration, in today's words.

    Returns:
        The configuration, and a sentence about what was dropped, or None.
    """
    import keras

    dropped: set[str] = set()

    def change(item: Config) -> Config | None:
        initializer = _class_of(item, keras.initializers)
        cls = initializer or _class_of(item, keras.layers)
        if cls is None:
            return None
        known = _arguments(cls)
        new = {
            key
            for key, value in item["config"].items()
            if key not in known and (initializer is not None or value is None)
        }
        dropped.update(f"{key} of {item['class_name']}" for key in new)
        return with_config(item, *new) if new else None

    model, _ = edit(model, change)
    told = f"dropped what Keras {keras.__version__} does not know: {', '.join(sorted(dropped))}"
    return model, told if dropped else None


def _class_of(item: Config, home: Any) -> Any:
    """Return the class of Keras' own that an object names, if it stands in this module."""
    if item.get("module") not in (None, home.__name__, f"keras.{home.__name__.split('.')[-1]}"):
        return None
    found = getattr(home, item["class_name"], None)
    return found if inspect.isclass(found) else None


def _arguments(cls: type) -> set[str]:
    """Return what a class and its bases take, and what they write of themselves."""
    names = {"name", "trainable", "dtype", "autocast"}
    for base in cls.__mro__:
        if base is not object and "__init__" in vars(base):
            names |= set(inspect.signature(vars(base)["__init__"]).parameters)
    return names
