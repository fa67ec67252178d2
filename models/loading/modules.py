"""Where Keras finds its classes, and the small words that changed between its versions."""

from __future__ import annotations

from .graph import bare_ends
from .tree import MODEL_CLASSES, Config, edit, with_config

_OLD_PREFIXES = ("keras.src.", "keras.engine.", "keras.layers.", "tf_keras.", "tensorflow.python.")
_MODERN_PREFIXES = ("keras.src.models.", "keras.src.ops.")
_HELD_LAYERS = ("layers", "layer", "forward_layer", "backward_layer", "cell", "cells")
_NORMALIZERS = ("BatchNormalization", "LayerNormalization", "Normalization")


def old_modules(model: Config) -> tuple[Config, str | None]:
    """Look for classes where they are today: keras.src.engine.functional is no more."""
    old: set[str] = set()

    def change(item: Config) -> Config | None:
        module = item.get("module")
        if not isinstance(module, str) or not module.startswith(_OLD_PREFIXES):
            return None
        if module.startswith(_MODERN_PREFIXES) or ".layers" not in module + _engine(module):
            return None
        old.add(module)
        return _with_module({key: value for key, value in item.items() if key != "module"})

    model, _ = edit(model, change)
    return model, f"looked in keras.layers for {', '.join(sorted(old))}" if old else None


def _engine(module: str) -> str:
    """Models lived in the engine before they had a place of their own."""
    return ".layers" if ".engine." in module else ""


def _home(item: Config) -> str:
    return "keras" if item["class_name"] in MODEL_CLASSES else "keras.layers"


def modern(model: Config, *, keras2: bool) -> Config:
    """Return the configuration in today's words, with every layer's module said.

    What Keras 3 still reads from a legacy .h5 file by itself, it reads here too; so these changes
    are no repairs. Compilation is left out: it is never restored.

    Args:
        model: The repaired configuration.
        keras2: Whether Keras 2 or 1 wrote it.
    """

    def change(item: Config) -> Config:
        item = {key: value for key, value in item.items() if key != "compile_config"}
        item = _in_todays_words(item)
        return _with_modules(bare_ends(item) if keras2 else item)

    model, _ = edit(model, change)
    return _with_module(model)


def _with_modules(item: Config) -> Config:
    held: Config = {}
    for key in _HELD_LAYERS:
        value = item["config"].get(key)
        if isinstance(value, list):
            held[key] = [_with_module(layer) for layer in value]
        elif value is not None:
            held[key] = _with_module(value)
    return with_config(item, **held)


def _with_module(layer: Config) -> Config:
    if not isinstance(layer, dict) or "class_name" not in layer or "module" in layer:
        return layer
    if layer["class_name"] == "Functional":
        layer = {**layer, "class_name": "Model"}
    return {**layer, "module": _home(layer), "registered_name": layer["class_name"]}


def _in_todays_words(item: Config) -> Config:
    config = dict(item["config"])
    config.pop("input_dtype", None)
    shape = config.pop("batch_input_shape", None)
    if item["class_name"] == "InputLayer" and shape is not None:
        config["batch_shape"] = shape
    if item["class_name"] in _NORMALIZERS and isinstance(config.get("axis"), list):
        axes = config["axis"]
        config["axis"] = axes[0] if len(axes) == 1 else axes or None
    if item["class_name"] == "LeakyReLU" and "alpha" in config:
        config["negative_slope"] = config.pop("alpha")
    if item["class_name"] == "MultiHeadAttention":  # built by its call, from all its inputs
        item = {key: value for key, value in item.items() if key != "build_config"}
    return {**item, "config": config}
