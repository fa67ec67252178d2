"""Pools, windowed and global."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from dsconvert.base.predictor import Array

from ..builder import KerasBuilder, refuse
from ..graph import Node
from ..layout import channels_last
from ..registry import op
from ..values import Tensor
from ..windows import Window, read_windows
from .convolution import zero_pad
from .unpooling import largest_places

_LOWEST = float(np.finfo(np.float32).min)


@op("MaxPool")
def max_pool(node: Node, build: KerasBuilder) -> Tensor | Sequence[Tensor]:
    """Return the largest value of each window; what is around the input never is.

    Where they are is a second output, if somebody reads it.
    """
    if len(node.outputs) > 1 and build.is_used(node.outputs[1]):
        x = build.channels_last(build.tensor(node))
        windows = read_windows(node, x.shapes, node.get("kernel_shape"))
        return _largest(node, build), largest_places(node, build, x, windows)
    return _largest(node, build)


def _largest(node: Node, build: KerasBuilder) -> Tensor:
    x = build.channels_last(build.tensor(node))
    windows = read_windows(node, x.shapes, node.get("kernel_shape"))
    order = channels_last(x.rank)
    if any(w.dilation > 1 for w in windows):
        return build.result(node, _dilated_max(node, build, x, windows), order)
    y, padding = x.keras, "valid"
    if not all(w.is_valid for w in windows):
        if all(w.is_same for w in windows):
            padding = "same"
        else:
            y = _pad_for_max(node, build, x, windows)
    return build.result(node, _pool(node, build, "MaxPooling", y, windows, padding), order)


@op("AveragePool")
def average_pool(node: Node, build: KerasBuilder) -> Tensor:
    """Return the mean of each window, without or with the padding counted."""
    x = build.channels_last(build.tensor(node))
    windows = read_windows(node, x.shapes, node.get("kernel_shape"))
    counts_pads = bool(node.get("count_include_pad", 0))
    return build.result(node, _average(node, build, x, windows, counts_pads), channels_last(x.rank))


@op("LpPool")
def lp_pool(node: Node, build: KerasBuilder) -> Tensor:
    """Return the p-norm of each window: the mean of |x|^p, times the number of taps, to the 1/p."""
    x = build.channels_last(build.tensor(node))
    windows = read_windows(node, x.shapes, node.get("kernel_shape"))
    p = node.get("p", 2)
    power = Tensor(x.name, _power(node, build, x.keras, p), x.order, x.shapes)
    mean = _average(node, build, power, windows, counts_pads=True, full=True)
    total = build.apply(node, "multiply", mean, float(np.prod([w.kernel for w in windows])))
    return build.result(node, _root(node, build, total, p), channels_last(x.rank))


@op("GlobalAveragePool", "GlobalMaxPool")
def global_pool(node: Node, build: KerasBuilder) -> Tensor:
    """Return the mean or the largest value of each channel; the axes stay, with size 1."""
    x = build.channels_last(build.tensor(node))
    kind = "Average" if node.op == "GlobalAveragePool" else "Max"
    if x.rank == 2:
        return build.result(node, x.keras, x.order)
    layer = build.layer(node, f"Global{kind}Pooling{x.rank - 2}D", keepdims=True)
    return build.result(node, layer(x.keras), x.order)


@op("GlobalLpPool")
def global_lp_pool(node: Node, build: KerasBuilder) -> Tensor:
    """Return the p-norm of each channel."""
    x = build.channels_last(build.tensor(node))
    p = node.get("p", 2)
    axes = tuple(range(1, x.rank - 1))
    total = build.apply(node, "sum", _power(node, build, x.keras, p), axis=axes, keepdims=True)
    return build.result(node, _root(node, build, total, p), x.order)


def _power(node: Node, build: KerasBuilder, x: Any, p: int) -> Any:
    if p == 2:
        return build.apply(node, "square", x)
    absolute = build.apply(node, "absolute", x)
    return absolute if p == 1 else build.apply(node, "power", absolute, float(p))


def _root(node: Node, build: KerasBuilder, x: Any, p: int) -> Any:
    if p == 1:
        return x
    return build.apply(node, "sqrt", x) if p == 2 else build.apply(node, "power", x, 1 / p)


def _pool(
    node: Node, build: KerasBuilder, kind: str, x: Any, windows: Sequence[Window], padding: str
) -> Any:
    return build.layer(
        node,
        f"{kind}{len(windows)}D",
        pool_size=tuple(w.kernel for w in windows),
        strides=tuple(w.stride for w in windows),
        padding=padding,
    )(x)


def _pad_for_max(node: Node, build: KerasBuilder, x: Tensor, windows: Sequence[Window]) -> Any:
    """Padding that never is the largest value.

    Zeros are not where nothing is negative. Else the edge is mirrored where every window that
    reaches over it also holds what is mirrored, which keeps the range of values as it is; int8
    quantization could not live with -3.4e38, the last resort.
    """
    padding = [w.padding for w in windows]
    if build.is_non_negative(x.name):
        return zero_pad(node, build, x.keras, padding)
    pairs = [(0, 0), *padding, (0, 0)]
    if all(2 * max(pair) <= w.extent for pair, w in zip(padding, windows, strict=True)):
        return build.apply(node, "pad", x.keras, pairs, mode="symmetric")
    return build.apply(node, "pad", x.keras, pairs, constant_values=_LOWEST)


def _dilated_max(node: Node, build: KerasBuilder, x: Tensor, windows: Sequence[Window]) -> Any:
    """Return the maximum over the taps, each a strided view of the whole input."""
    if any(w.is_free for w in windows):
        raise refuse(node, "it is dilated and its input's size is free", _FIX)
    padding = [w.needed(w.sizes[0]) for w in windows]
    y = x.keras
    if any(map(any, padding)) and build.is_non_negative(x.name):
        y = zero_pad(node, build, y, padding)
    elif any(map(any, padding)):
        y = build.apply(node, "pad", y, [(0, 0), *padding, (0, 0)], constant_values=_LOWEST)
    return _over_taps(node, build, y, windows, "Maximum")


def _over_taps(
    node: Node, build: KerasBuilder, x: Any, windows: Sequence[Window], kind: str
) -> Any:
    """A padded input's taps, each a strided view of the whole, put together by a merging layer."""
    best = None
    for taps in itertools.product(*(range(w.kernel) for w in windows)):
        view = tuple(
            slice(
                t * w.dilation, t * w.dilation + (w.count(w.sizes[0]) - 1) * w.stride + 1, w.stride
            )
            for t, w in zip(taps, windows, strict=True)
        )
        part = build.view(node, x, (slice(None), *view, slice(None)))
        best = part if best is None else build.layer(node, kind)([best, part])
    return best


def _average(
    node: Node,
    build: KerasBuilder,
    x: Tensor,
    windows: Sequence[Window],
    counts_pads: bool,
    full: bool = False,
) -> Any:
    """Return the mean of each window.

    Args:
        node: The node.
        build: The builder.
        x: What is averaged, channels last.
        windows: The windows.
        counts_pads: Whether the padding that the node asks for counts.
        full: Whether every tap counts, wherever it is.
    """
    dilated = any(w.dilation > 1 for w in windows)
    valid = all(w.is_valid for w in windows)
    if not dilated and valid:
        return _pool(node, build, "AveragePooling", x.keras, windows, "valid")
    if not dilated and not counts_pads and all(w.is_same for w in windows):
        return _pool(node, build, "AveragePooling", x.keras, windows, "same")
    free = any(w.is_free for w in windows)
    if free and (any(w.same_upper or w.ceil for w in windows) or dilated):
        raise refuse(node, "its windows depend on a free size in a way no Keras layer has", _FIX)
    padding = [w.padding for w in windows]
    y = _mean(node, build, zero_pad(node, build, x.keras, padding), windows, dilated)
    if full or (free and counts_pads):
        return y
    if free:
        ones = build.apply(node, "ones_like", x.keras)
        share = _mean(node, build, zero_pad(node, build, ones, padding), windows, False)
        return build.apply(node, "divide", y, share)
    share = np.ones(())
    for w in windows:
        share = share[..., None] * _share(w, counts_pads)
    if np.all(share == 1):
        return y
    correction = (1 / share).astype(np.float32)[None, ..., None]
    return build.apply(node, "multiply", y, correction)


def _share(window: Window, counts_pads: bool) -> Array:
    """For each window, the part of its taps that counts."""
    size = window.sizes[0]
    before, after = window.needed(size) if window.same_upper else (window.before, window.after)
    low, high = (-before, size + after) if counts_pads else (0, size)
    starts = np.arange(window.count(size)) * window.stride - before
    taps = starts[:, None] + np.arange(window.kernel) * window.dilation
    share: Array = ((taps >= low) & (taps < high)).mean(1)
    return share


def _mean(node: Node, build: KerasBuilder, x: Any, windows: Sequence[Window], dilated: bool) -> Any:
    """Return the mean over all taps of a padded input."""
    if not dilated:
        return _pool(node, build, "AveragePooling", x, windows, "valid")
    total = _over_taps(node, build, x, windows, "Add")
    return build.apply(node, "divide", total, float(np.prod([w.kernel for w in windows])))


_FIX = "Fix the input's height and width, or give images: theirs are taken."
