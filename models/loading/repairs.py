"""Repairs of old model configurations: a table, read from top to bottom.

Each repair takes a model's configuration and returns a new one with a sentence about what was
changed, or the same with None. They need nothing of Keras but its vocabulary over the years.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .graph import input_layers, keyword_tensors, own_nodes, without_idle_keywords
from .keras1 import keras1_vocabulary, sequential_lists
from .lambdas import affine_lambdas
from .modules import old_modules
from .tf_composites import spelled_out
from .tfops import tf_operations
from .tree import Config, counted, edit, name_of, with_config

Repair = Callable[[Config], tuple[Config, str | None]]

_RENAMED = {
    "BatchNormalizationV1": "BatchNormalization",
    "BatchNormalizationV2": "BatchNormalization",
    "SyncBatchNormalization": "BatchNormalization",
}

_ANY = object()
_SEPARABLE = ("SeparableConv1D", "SeparableConv2D")
_DEPTHWISE = ("DepthwiseConv1D", "DepthwiseConv2D")
_TRANSPOSED = ("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose")
_RECURRENT = ("RNN", "SimpleRNN", "GRU", "LSTM", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D")
_SPATIAL_DROPOUT = ("SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D")
_RANDOM = (
    "RandomBrightness", "RandomContrast", "RandomCrop", "RandomFlip", "RandomHeight",
    "RandomRotation", "RandomTranslation", "RandomWidth", "RandomZoom",
)  # fmt: skip

# Keys that Keras 3 refuses, with the value at which they say nothing.
_IDLE_KEYS: dict[str, tuple[tuple[str, ...], Any]] = {
    "groups": (_SEPARABLE + _DEPTHWISE + _TRANSPOSED, 1),
    "kernel_initializer": (_SEPARABLE + _DEPTHWISE, _ANY),
    "kernel_regularizer": (_SEPARABLE + _DEPTHWISE, _ANY),
    "kernel_constraint": (_SEPARABLE + _DEPTHWISE, _ANY),
    "time_major": (_RECURRENT, False),
    "rng_type": (_RANDOM, _ANY),
    "query_shape": (("MultiHeadAttention",), _ANY),
    "key_shape": (("MultiHeadAttention",), _ANY),
    "value_shape": (("MultiHeadAttention",), _ANY),
    "softmax_robust_masking": (("MultiHeadAttention",), False),
    "trainable": (_SPATIAL_DROPOUT, _ANY),
    "value_range": (("RandomRotation",), _ANY),
    "noise_shape": (_SPATIAL_DROPOUT, None),
}


def renamed_classes(model: Config) -> tuple[Config, str | None]:
    """Give classes that TensorFlow 1 exported under another name their own name."""

    def change(item: Config) -> Config | None:
        name = _RENAMED.get(item["class_name"])
        return {**item, "class_name": name} if name else None

    model, changed = edit(model, change)
    return model, f"read {counted(changed)} as BatchNormalization" if changed else None


def dropped_layers(model: Config) -> tuple[Config, str | None]:
    """Read layers that Keras 3 dropped as what computes the same in inference."""
    read: dict[str, list[Config]] = {}

    def change(item: Config) -> Config | None:
        name, config = item["class_name"], item["config"]
        if name not in _DROPPED:
            return None
        kept = {k: config[k] for k in _EVERYWHERE if k in config}
        now, settings = _DROPPED[name](config)
        read.setdefault(f"{name} as {now}", []).append(item)
        calls = without_idle_keywords(item.get("inbound_nodes") or [])
        rest = {k: v for k, v in item.items() if k not in ("module", "registered_name")}
        rest |= {"inbound_nodes": calls} if "inbound_nodes" in item else {}
        return {**rest, "class_name": now, "config": {**kept, **settings}}

    model, _ = edit(model, change)
    parts = [f"{what} ({', '.join(map(name_of, items))})" for what, items in sorted(read.items())]
    return model, f"read {'; '.join(parts)}" if parts else None


def _nothing(config: Config) -> tuple[str, Config]:
    """Layers that change the size of training images, and nothing in inference."""
    return "Activation", {"activation": "linear"}


def _thresholded(config: Config) -> tuple[str, Config]:
    return "ReLU", {"threshold": float(config.get("theta", 1.0))}


_EVERYWHERE = ("name", "trainable", "dtype", "batch_input_shape")
_DROPPED = {
    "RandomHeight": _nothing,
    "RandomWidth": _nothing,
    "ThresholdedReLU": _thresholded,
}


def idle_keys(model: Config) -> tuple[Config, str | None]:
    """Drop keys that say nothing and that Keras 3 refuses, such as groups=1 on a depthwise layer.

    A key with any other value stays, so that Keras refuses the layer rather than change it.
    """
    dropped: dict[str, list[Config]] = {}

    def change(item: Config) -> Config | None:
        idle = {key for key in _IDLE_KEYS.keys() & item["config"] if _is_idle(item, key)}
        for key in idle:
            value = item["config"][key]
            plain = value is None or isinstance(value, bool | int | float | str)
            dropped.setdefault(f"{key}={value}" if plain else key, []).append(item)
        return with_config(item, *idle) if idle else None

    model, _ = edit(model, change)
    parts = [f"{what} from {counted(items)}" for what, items in sorted(dropped.items())]
    return model, f"dropped {'; '.join(parts)}" if parts else None


def _is_idle(item: Config, key: str) -> bool:
    classes, value = _IDLE_KEYS[key]
    return item["class_name"] in classes and (value is _ANY or item["config"][key] == value)


def dtype_policies(model: Config) -> tuple[Config, str | None]:
    """Name mixed-precision policies by their name, since their old class is gone."""

    def change(item: Config) -> Config | None:
        policy = item["config"].get("dtype")
        if not isinstance(policy, dict) or policy.get("class_name") not in ("Policy", "PolicyV1"):
            return None
        return with_config(item, dtype=policy["config"]["name"])

    model, changed = edit(model, change)
    return model, f"read the old dtype policy of {counted(changed)}" if changed else None


def bins_of_floats(model: Config) -> tuple[Config, str | None]:
    """Let Discretization layers of Keras 2 take floats, which Keras 3 cuts to their own dtype."""

    def change(item: Config) -> Config | None:
        if item["class_name"] != "Discretization" or "trainable" not in item["config"]:
            return None  # Keras 3 writes no such key
        return with_config(item, "trainable", dtype="float32")

    model, changed = edit(model, change)
    return model, f"let {counted(changed)} take floats" if changed else None


REPAIRS: tuple[Repair, ...] = (
    sequential_lists,
    keras1_vocabulary,
    renamed_classes,
    dropped_layers,
    old_modules,
    affine_lambdas,
    own_nodes,
    spelled_out,
    tf_operations,
    keyword_tensors,
    idle_keys,
    bins_of_floats,
    dtype_policies,
    input_layers,
)
"""In order: later repairs rely on the vocabulary that earlier ones establish."""


def repair(model: Config) -> tuple[Config, tuple[str, ...]]:
    """Apply every repair of the table.

    Returns:
        The repaired configuration and what was done to it, one sentence for each repair.
    """
    sentences: list[str] = []
    for step in REPAIRS:
        model, sentence = step(model)
        if sentence:
            sentences.append(sentence)
    return model, tuple(sentences)
