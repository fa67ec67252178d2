"""The vocabulary of Keras 1, read into that of Keras 2 and 3.

Recurrent layers are left out: their weights were laid out gate by gate.
"""

from __future__ import annotations

from typing import Any

from dsconvert.base.errors import InputError

from .tree import Config, counted, edit, name_of, with_config

_CONV = {
    "nb_filter": "filters",
    "subsample": "strides",
    "subsample_length": "strides",
    "filter_length": "kernel_size",
    "atrous_rate": "dilation_rate",
}
_POOL_1D = {"pool_length": "pool_size", "stride": "strides"}
_DROPOUT = {"p": "rate"}

# Keras 1 class -> today's class and the keys that changed their names in it.
_CLASSES: dict[str, tuple[str, dict[str, str]]] = {
    "Convolution1D": ("Conv1D", _CONV),
    "Convolution2D": ("Conv2D", _CONV),
    "Convolution3D": ("Conv3D", _CONV),
    "AtrousConvolution1D": ("Conv1D", _CONV),
    "AtrousConvolution2D": ("Conv2D", _CONV),
    "SeparableConvolution2D": ("SeparableConv2D", _CONV),
    "Deconvolution2D": ("Conv2DTranspose", _CONV),
    "Dense": ("Dense", {"output_dim": "units"}),
    "Dropout": ("Dropout", _DROPOUT),
    "SpatialDropout1D": ("SpatialDropout1D", _DROPOUT),
    "SpatialDropout2D": ("SpatialDropout2D", _DROPOUT),
    "GaussianDropout": ("GaussianDropout", _DROPOUT),
    "GaussianNoise": ("GaussianNoise", {"sigma": "stddev"}),
    "MaxPooling1D": ("MaxPooling1D", _POOL_1D),
    "AveragePooling1D": ("AveragePooling1D", _POOL_1D),
    "UpSampling1D": ("UpSampling1D", {"length": "size"}),
}
_COMMON = {
    "W_regularizer": "kernel_regularizer",
    "b_regularizer": "bias_regularizer",
    "bias": "use_bias",
    "border_mode": "padding",
    "dim_ordering": "data_format",
}
# What only Keras 1 wrote: a layer with one of these, or with a key renamed above, is of its age.
_SIGNS = frozenset({"W_regularizer", "W_constraint", "border_mode", "dim_ordering"})
_KERNEL_SIZES = (("nb_row", "nb_col"), ("kernel_dim1", "kernel_dim2", "kernel_dim3"))
# Initial values and constraints say nothing about a trained model.
_GONE = ("init", "W_constraint", "b_constraint", "input_length")
_MERGES = {
    "sum": "Add",
    "mul": "Multiply",
    "ave": "Average",
    "max": "Maximum",
    "concat": "Concatenate",
}


def sequential_lists(model: Config) -> tuple[Config, str | None]:
    """Give a Sequential that is a bare list of layers, as before Keras 2.2.3, a name of its own."""
    count = 0

    def visit(node: Any, name: str) -> Any:
        nonlocal count
        if isinstance(node, list):
            return [visit(child, f"sequential_{i}") for i, child in enumerate(node, start=1)]
        if not isinstance(node, dict):
            return node
        node = {k: visit(v, k if k != "config" else name) for k, v in node.items()}
        if node.get("class_name") == "Sequential" and isinstance(node.get("config"), list):
            count += 1
            return {**node, "config": {"name": node.get("name", name), "layers": node["config"]}}
        return node

    repaired = visit(model, "sequential")
    if not count:
        return model, None
    return (
        repaired,
        f"read {count} Sequential{'s' if count > 1 else ''} written as a list of layers",
    )


def keras1_vocabulary(model: Config) -> tuple[Config, str | None]:
    """Translate the layers of Keras 1.

    Raises:
        InputError: Where a layer was laid out for Theano, or does what no later Keras does.
    """

    def change(item: Config) -> Config | None:
        if item["class_name"] == "Merge":
            return _merge(item)
        name, renamed = _CLASSES.get(item["class_name"], (item["class_name"], {}))
        config = item["config"]
        signs = renamed.keys() | _SIGNS | ({"mode"} if name == "BatchNormalization" else set())
        if name == item["class_name"] and not config.keys() & signs:
            return None
        return {**item, "class_name": name, "config": _config(item, renamed | _COMMON)}

    model, changed = edit(model, change)
    return model, f"translated {counted(changed)} from Keras 1" if changed else None


def _config(item: Config, renamed: dict[str, str]) -> Config:
    """Return one layer's configuration in today's words."""
    class_name, config = item["class_name"], dict(item["config"])
    if config.get("dim_ordering", "tf") != "tf":
        raise InputError(
            f"layer {name_of(item)} has dim_ordering={config['dim_ordering']!r} (channels first): "
            "the file does not say whether Theano wrote it, which would mirror every kernel.",
            "Load it where it was made, convert it there to channels last, and save it again.",
            code="keras1-setting",
        )
    if config.get("border_mode", "valid") not in ("valid", "same"):
        raise _refusal(item, "border_mode", config["border_mode"])
    if config.pop("mode", 0) != 0:
        raise _refusal(item, "mode", item["config"]["mode"])
    for sizes in _KERNEL_SIZES:
        if sizes[0] in config:
            config["kernel_size"] = [config.pop(size) for size in sizes]
    for key in _GONE:
        config.pop(key, None)
    if class_name != "Embedding":
        config.pop("input_dim", None)
    if class_name == "Deconvolution2D":
        config.pop("output_shape", None)
    config = {renamed.get(key, key): value for key, value in config.items()}
    for key, value in config.items():
        if key.endswith("_regularizer"):
            config[key] = _regularizer(value)
    if "data_format" in config:
        config["data_format"] = "channels_last"
    return config


def _regularizer(value: Any) -> Config | None:
    if not isinstance(value, dict) or not {"l1", "l2"} & value.keys():
        return None
    config = {"l1": value.get("l1") or 0.0, "l2": value.get("l2") or 0.0}
    return {"class_name": "L1L2", "config": config}


def _merge(item: Config) -> Config:
    mode = item["config"].get("mode")
    if not isinstance(mode, str) or mode not in _MERGES or "inbound_nodes" not in item:
        raise _refusal(item, "mode", mode if isinstance(mode, str) else "a function")
    config = {"name": name_of(item)}
    if mode == "concat":
        config["axis"] = item["config"]["concat_axis"]
    return {**with_config({**item, "config": {}}, **config), "class_name": _MERGES[mode]}


def _refusal(item: Config, key: str, value: Any) -> InputError:
    return InputError(
        f"layer {name_of(item)} ({item['class_name']} of Keras 1) has {key}={value}, "
        "which no later Keras has.",
        "Rebuild this layer in Python and save the model again.",
        code="keras1-setting",
    )
