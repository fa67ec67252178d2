"""Settings of TensorFlow functions as those of Keras' operations.

Each function takes the settings that a call gave, under the operation's names, and returns the
operation's own.
"""

from __future__ import annotations

from typing import Any

from .tree import Config


class Untranslatable(Exception):
    """A call that the operation would not compute the same for."""


def resize(settings: Config) -> Config:
    """Take the methods that Keras has."""
    method = settings.pop("interpolation", "bilinear")
    if method not in ("bilinear", "nearest", "bicubic", "lanczos3", "lanczos5"):
        raise Untranslatable(f"the method {method}")
    if settings.pop("preserve_aspect_ratio", False):
        raise Untranslatable("preserve_aspect_ratio")
    return {**settings, "interpolation": method, "data_format": "channels_last"}


def pad(settings: Config) -> Config:
    """Keep the constant where there is one."""
    mode = str(settings.pop("mode", "CONSTANT")).lower()
    if mode != "constant" or settings.get("constant_values") == 0:
        settings.pop("constant_values", None)
    if mode not in ("constant", "reflect", "symmetric"):
        raise Untranslatable(f"the mode {mode}")
    return {**settings, "mode": mode}


def channels_last(settings: Config) -> Config:
    """Refuse channels first."""
    if settings.pop("data_format", "NHWC") != "NHWC":
        raise Untranslatable("channels first")
    return {**settings, "data_format": "channels_last"}


def gelu(settings: Config) -> Config:
    """Take the formula."""
    return {"approximate": bool(settings.get("approximate", False))}


def split(settings: Config) -> Config:
    """Turn sizes into places to cut at."""
    sections = settings.get("indices_or_sections")
    if isinstance(sections, list):  # sizes there, places to cut here
        places = [sum(sections[: i + 1]) for i in range(len(sections) - 1)]
        settings = {**settings, "indices_or_sections": places}
    return {"axis": 0, **settings}


def reshape(settings: Config) -> Config:
    """Take sizes that are numbers, the batch among them."""
    shape = settings.get("newshape")
    if not isinstance(shape, list) or not all(isinstance(size, int) for size in shape):
        raise Untranslatable("sizes that the model computes")
    return settings


def norm(settings: Config) -> Config:
    """Refuse all norms but the Euclidean one."""
    axis = settings.get("axis")
    if settings.pop("ord", "euclidean") not in ("euclidean", 2) or axis is None:
        raise Untranslatable("another norm, or over all axes")
    return settings


def conv(settings: Config) -> Config:
    """Take strides and dilations of the inner axes of images."""
    if settings.pop("data_format", "NHWC") != "NHWC" or not isinstance(settings["padding"], str):
        raise Untranslatable("channels first, or a padding of its own")
    for key in ("strides", "dilation_rate"):
        settings[key] = inner_sizes(settings.get(key, 1), 2)
    return {
        **settings,
        "padding": settings["padding"].lower(),
        "data_format": "channels_last",
    }


def conv1d(settings: Config) -> Config:
    """Take strides and dilations of the inner axis of sequences."""
    if settings.pop("data_format", "NWC") != "NWC" or not isinstance(settings["padding"], str):
        raise Untranslatable("channels first, or a padding of its own")
    for key in ("strides", "dilation_rate"):
        settings[key] = inner_sizes(settings.get(key, 1), 1)
    return {**settings, "padding": settings["padding"].lower(), "data_format": "channels_last"}


def conv3d(settings: Config) -> Config:
    """Take strides and dilations of the inner axes of volumes."""
    if settings.pop("data_format", "NDHWC") != "NDHWC":
        raise Untranslatable("channels first")
    for key in ("strides", "dilation_rate"):
        settings[key] = inner_sizes(settings.get(key, 1), 3)
    return {**settings, "padding": settings["padding"].lower(), "data_format": "channels_last"}


def patches(settings: Config) -> Config:
    """Take sizes, strides and rates of the inner axes."""
    rates = inner_sizes(settings.pop("dilation_rate", 1), 2)
    if rates[0] != rates[1]:
        raise Untranslatable("rates of two kinds")
    return {
        "size": inner_sizes(settings["size"], 2),
        "strides": inner_sizes(settings["strides"], 2),
        "dilation_rate": rates[0],
        "padding": str(settings["padding"]).lower(),
        "data_format": "channels_last",
    }


def depthwise(settings: Config) -> Config:
    """Take strides of one kind, as depthwise kernels do."""
    settings = conv(settings)
    for key in ("strides", "dilation_rate"):
        first, second = settings[key]
        if first != second:
            raise Untranslatable("strides of two kinds, which no depthwise kernel takes")
        settings[key] = first
    return settings


def inner_sizes(value: Any, rank: int) -> list[int]:
    """Return sizes of a window, or strides, of the inner axes alone; TensorFlow gives all or one.

    Raises:
        Untranslatable: If they are not 1 for samples and channels.
    """
    if isinstance(value, int):
        return [value] * rank
    values = [int(one) for one in value]
    if len(values) == rank + 2 and values[0] == values[-1] == 1:
        return values[1:-1]
    if len(values) not in (1, rank):
        raise Untranslatable("windows over samples or channels")
    return values if len(values) == rank else values * rank
