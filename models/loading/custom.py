"""Names in a model file that Keras does not know."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dsconvert.base.errors import InputError

from ..user_code import import_named
from .tree import MODEL_CLASSES, Config, edit, is_object, with_config

_FIXED_NAMESPACES = {
    "initializer": "initializers",
    "regularizer": "regularizers",
    "constraint": "constraints",
    "activation": "activations",
}
# They shape training only: a trained model computes the same without them.
_DISPENSABLE = ("initializer", "regularizer", "constraint")
_HINT = "Name your code: --custom-objects package.module:name (a class, a function, or a dict)."


def resolve_custom_objects(spec: str) -> dict[str, Any]:
    """Import the objects that a user names, from installed packages or the current directory.

    Args:
        spec: ``package.module:name``, where the name is a dict of objects, a class or a function.

    Raises:
        InputError: If there is nothing of that kind to import, with the cause.
    """
    module_name, _, name = spec.partition(":")
    if not module_name or not name:
        raise InputError(
            f"--custom-objects {spec}: expected package.module:name.",
            "For example: --custom-objects my_layers:CUSTOM_OBJECTS",
            code="not-custom-objects",
        )
    try:
        found = import_named(spec)
    except Exception as error:  # user code may raise anything while it is imported
        raise InputError(
            f"--custom-objects {spec}: cannot be imported: {type(error).__name__}: {error}.",
            "Run from the folder that holds the module, or install its package.",
            code="not-importable",
        ) from error
    if isinstance(found, Mapping):
        return {str(key): value for key, value in found.items()}
    if callable(found):
        return {getattr(found, "__name__", name): found}
    raise InputError(
        f"--custom-objects {spec}: is a {type(found).__name__}, "
        "expected a dict, a class or a function.",
        _HINT,
        code="not-custom-objects",
    )


def plain_models(model: Config, custom: Mapping[str, Any]) -> tuple[Config, str | None]:
    """Read models of a class of the user's own as the functional ones that they are.

    Most such classes have a `train_step` of their own. Of a class whose `call` is its own Keras
    writes no layers and connections.

    Args:
        model: The configuration.
        custom: The classes that the user gives; these are used.

    Returns:
        The configuration, and a sentence about what was changed, or None.
    """

    def change(item: Config) -> Config | None:
        known = item["class_name"] in MODEL_CLASSES or item["class_name"] in custom
        if known or not {"layers", "input_layers", "output_layers"} <= item["config"].keys():
            return None
        kept = {k: v for k, v in item.items() if k not in ("module", "registered_name")}
        return {**kept, "class_name": "Functional"}

    model, changed = edit(model, change)
    names = sorted({item["class_name"] for item in changed})
    if not names:
        return model, None
    return model, f"read {', '.join(names)} by the layers alone; what its own code does is not used"


def check_names(path: Path, model: Config, custom: Mapping[str, Any]) -> tuple[Config, str | None]:
    """Make sure that every class and function of the model can be found.

    Unknown initializers, regularizers and constraints are dropped if nothing else is unknown.

    Returns:
        The configuration, without what was dropped, and a sentence about it.

    Raises:
        InputError: With all the missing names at once.
    """
    names: dict[str, set[str]] = {}
    for kind, name in _missing(model, custom, ""):
        names.setdefault(kind, set()).add(name)
    if not names:
        return model, None
    listed = "; ".join(
        f"{kind}: {', '.join(sorted(found))}" for kind, found in sorted(names.items())
    )
    if not names.keys() <= set(_DISPENSABLE):
        raise InputError(
            f"{path} needs what Keras does not have ({listed}).", _HINT, code="needs-custom-objects"
        )

    def change(item: Config) -> Config | None:
        unknown = [
            key
            for key, value in item["config"].items()
            if _kind(key) in _DISPENSABLE and any(_missing(value, custom, key))
        ]
        return with_config(item, *unknown) if unknown else None

    return edit(model, change)[0], f"dropped what only training needs ({listed})"


def _kind(key: str) -> str:
    """Return what the value of a key is, by the key's last word."""
    word = key.rpartition("_")[2]
    return word if word in (*_FIXED_NAMESPACES, "quantizer") else "layer"


def _missing(value: Any, custom: Mapping[str, Any], key: str) -> Iterator[tuple[str, str]]:
    """Yield every unknown object in the tree as (kind, name)."""
    kind = _kind(key)
    if isinstance(value, list):
        for child in value:
            yield from _missing(child, custom, key)
    elif isinstance(value, str) and kind in _FIXED_NAMESPACES:
        if not _is_known_name(value, kind, custom):
            yield kind, value
    elif isinstance(value, dict):
        if value.get("class_name") == "function":
            if not _is_known_name(str(value.get("config")), "activation", custom):
                yield "function", str(value.get("config"))
        elif is_object(value) and not _is_known(value, kind, custom):
            yield kind, value["class_name"]
        for inner, child in value.items():
            if inner not in ("class_name", "registered_name", "module", "name"):
                yield from _missing(child, custom, key if inner == "config" else inner)


def _is_known_name(name: str, kind: str, custom: Mapping[str, Any]) -> bool:
    import keras

    if keras.saving.get_registered_object(name, custom) is not None:
        return True
    namespace = getattr(keras, _FIXED_NAMESPACES[kind])
    if hasattr(namespace, name):
        return True
    try:
        return namespace.get(name) is not None
    except (ValueError, TypeError):
        return False


def _is_known(item: Config, kind: str, custom: Mapping[str, Any]) -> bool:
    """Tell whether Keras or the user has the class of an object."""
    import keras

    name, module = item["class_name"], item.get("module")
    registered = str(item.get("registered_name") or name)
    if name.startswith("__") or keras.saving.get_registered_object(registered, custom) is not None:
        return True
    if module is None:
        if kind in _FIXED_NAMESPACES:
            return _is_known_name(name, kind, custom)
        return kind != "quantizer" and "module" not in item
    if not isinstance(module, str) or module.split(".")[0] != "keras":
        return False
    try:
        return hasattr(importlib.import_module(module), name)
    except ImportError:
        return False
