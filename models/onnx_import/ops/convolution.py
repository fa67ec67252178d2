"""Convolutions and transposed convolutions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from dsconvert.base.predictor import Array

from ..builder import KerasBuilder, refuse
from ..graph import Node
from ..layout import channels_last
from ..registry import op
from ..values import Sizes, Tensor
from ..windows import Window, read_windows


@op("Conv")
def conv(node: Node, build: KerasBuilder) -> Tensor:
    """Return a convolution of 1 to 3 dimensions: depthwise where each group reads one channel."""
    x = build.channels_last(build.tensor(node))
    weight = build.constant(node, 1)
    windows = read_windows(node, x.shapes, weight.shape[2:])
    kernel = _Kernel(groups=node.get("group", 1), channels=int(weight.shape[1]), flip=False)
    y, padding = _padded(node, build, x.keras, windows, kernel.is_depthwise(x.rank - 2))
    y = _convolution(node, build, y, windows, padding, kernel, weight.shape)
    return build.result(node, y, channels_last(x.rank))


@op("ConvTranspose")
def conv_transpose(node: Node, build: KerasBuilder) -> Tensor:
    """Return a transposed convolution.

    Keras' layers have neither groups nor all paddings. What they cannot do is done by the
    definition: zeros are put between the pixels, and the flipped kernel slides over them.
    """
    x = build.channels_last(build.tensor(node))
    weight = build.constant(node, 1)
    rank = x.rank - 2
    outs = build.output_shapes(node)
    groups = node.get("group", 1)
    strides = node.get("strides", (1,) * rank)
    dilations = node.get("dilations", (1,) * rank)
    before = _transposed_pads(node, x.shapes, outs, weight.shape[2:], strides, dilations)
    taps = weight.shape[2:]
    # What Keras' "valid" gives beyond the wanted output, per axis and probe.
    excess = [
        {
            size[2 + i] * strides[i] + max(taps[i] - strides[i], 0) - before[i] - out[2 + i]
            for size, out in zip(x.shapes, outs, strict=True)
        }
        for i in range(rank)
    ]
    whole = all(len(rest) == 1 for rest in excess)
    if groups > 1 or max(strides) == 1 or max(dilations) > 1 or not whole:
        y = _by_definition(node, build, x, weight.shape, before, outs)
        return build.result(node, y, channels_last(x.rank))
    # An output that is wanted longer ends in what zeros behind the input give.
    more = [math.ceil(max(-min(rest), 0) / strides[i]) for i, rest in enumerate(excess)]
    after = [min(rest) + more[i] * strides[i] for i, rest in enumerate(excess)]
    same = not any(more) and all(
        out[2 + i] == size[2 + i] * strides[i] and before[i] == max(taps[i] - strides[i], 0) // 2
        for i in range(rank)
        for size, out in zip(x.shapes, outs, strict=True)
    )
    layer = build.layer(
        node,
        f"Conv{rank}DTranspose",
        filters=int(weight.shape[1]),
        kernel_size=tuple(taps),
        strides=tuple(strides),
        padding="same" if same else "valid",
        use_bias=node.has(2),
    )
    y = layer(zero_pad(node, build, x.keras, [(0, count) for count in more]))
    build.weight(node, 1, layer, "kernel", lambda w: np.moveaxis(w, (0, 1), (-1, -2)))
    if node.has(2):
        build.weight(node, 2, layer, "bias")
    if not same and (any(before) or any(after)):
        crop = tuple(zip(before, after, strict=True))
        y = build.layer(
            node, f"Cropping{rank}D", suffix="_crop", cropping=crop[0] if rank == 1 else crop
        )(y)
    return build.result(node, y, channels_last(x.rank))


class _Kernel:
    """How ONNX' kernel becomes that of a Keras convolution.

    Args:
        groups: The number of groups.
        channels: The input channels of each group.
        flip: Whether it is that of a transposed convolution, (in, out / groups, ...), which
            slides over the input flipped.
    """

    def __init__(self, groups: int, channels: int, *, flip: bool) -> None:
        self.groups, self.channels, self.flip = groups, channels, flip

    def is_depthwise(self, rank: int) -> bool:
        """Tell whether a layer of this many dimensions is a depthwise one."""
        return self.groups > 1 and self.channels == 1 and rank < 3

    def plain(self, w: Array) -> Array:
        """As Conv's: (*kernel, in / groups, out)."""
        if not self.flip:
            return np.moveaxis(w, (0, 1), (-1, -2))
        w = np.flip(w, tuple(range(2, w.ndim)))
        w = w.reshape(self.groups, self.channels, *w.shape[1:])  # group, in, out, kernel
        w = np.moveaxis(w, (0, 1, 2), (-2, -3, -1))  # kernel, in, group, out
        return w.reshape(*w.shape[:-2], -1)

    def depthwise(self, w: Array) -> Array:
        """As DepthwiseConv's: (*kernel, in, multiplier)."""
        w = self.plain(w)[..., 0, :]
        return w.reshape(*w.shape[:-1], self.groups, -1)


def _convolution(
    node: Node,
    build: KerasBuilder,
    x: Any,
    windows: Sequence[Window],
    padding: str,
    kernel: _Kernel,
    stored: Sequence[int],
) -> Any:
    """Give a Conv or DepthwiseConv layer, filled from the node's inputs 1 and 2, and its output."""
    rank = len(windows)
    filters = stored[1] * kernel.groups if kernel.flip else stored[0]
    strides = tuple(w.stride for w in windows)
    depthwise = kernel.is_depthwise(rank)
    thin = _is_thinned(windows, depthwise)
    absorbed = None if node.has(2) else build.bias_after(node, channel_axis=1)
    config: dict[str, Any] = {
        "kernel_size": tuple(w.kernel for w in windows),
        "strides": (1,) * rank if thin else strides,
        "dilation_rate": tuple(w.dilation for w in windows),
        "padding": padding,
        "use_bias": node.has(2) or absorbed is not None,
    }
    if depthwise:
        kind = f"DepthwiseConv{rank}D"
        config["depth_multiplier"] = int(filters // kernel.groups)
    else:
        kind = f"Conv{rank}D"
        config |= {"filters": int(filters), "groups": kernel.groups}
    layer = build.layer(node, kind, **config)
    y = layer(x)
    arrange = kernel.depthwise if depthwise else kernel.plain
    build.weight(node, 1, layer, "kernel", arrange)
    if node.has(2):
        build.weight(node, 2, layer, "bias")
    elif absorbed is not None:
        build.weight(*absorbed, layer, "bias", np.ravel)
    if not thin:
        return y
    pick = build.layer(node, f"MaxPooling{rank}D", suffix="_stride", pool_size=1, strides=strides)
    return pick(y)


def _is_thinned(windows: Sequence[Window], depthwise: bool) -> bool:
    """Tell whether the layer has to run with stride 1 and its output be thinned out.

    Keras' layers take strides or dilations, and TensorFlow strides a depthwise convolution by one
    number for both axes.
    """
    strides = {w.stride for w in windows}
    dilated = any(w.dilation > 1 for w in windows)
    return (dilated and max(strides) > 1) or (depthwise and len(strides) > 1)


def _padded(
    node: Node, build: KerasBuilder, x: Any, windows: Sequence[Window], depthwise: bool
) -> tuple[Any, str]:
    """The input, with a layer of zeros around it where Keras' "same" is not what ONNX means."""
    if all(w.is_valid for w in windows):
        return x, "valid"
    if all(w.is_same for w in windows) and not _is_thinned(windows, depthwise):
        return x, "same"
    return zero_pad(node, build, x, [_explicit(node, w) for w in windows]), "valid"


def _explicit(node: Node, window: Window) -> tuple[int, int]:
    if window.same_upper and window.is_free and window.stride > 1:
        raise refuse(
            node,
            "auto_pad SAME_UPPER of a free size, with strides and dilations or with unequal "
            "strides, is in no Keras layer",
            "Fix the input's height and width, or give images: theirs are taken.",
        )
    if window.same_upper:
        return window.needed(window.sizes[0])
    return window.padding


def zero_pad(node: Node, build: KerasBuilder, x: Any, padding: Sequence[tuple[int, int]]) -> Any:
    """Return a channels-last tensor with zeros around it."""
    if not any(before or after for before, after in padding):
        return x
    rank = len(padding)
    amount = padding[0] if rank == 1 else tuple(padding)
    return build.layer(node, f"ZeroPadding{rank}D", suffix="_pad", padding=amount)(x)


def _transposed_pads(
    node: Node,
    shapes: Sequence[Sizes],
    outs: Sequence[Sizes],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> list[int]:
    """Tell how much is cut off at the start of each axis of the full transposed convolution."""
    rank = len(kernel)
    mode = node.get("auto_pad", "NOTSET") or "NOTSET"
    if mode == "VALID":
        return [0] * rank
    if mode == "NOTSET" and not node.get("output_shape"):
        return list(node.get("pads", (0,) * (2 * rank)))[:rank]
    extra = node.get("output_padding", (0,) * rank)
    before = []
    for i in range(rank):
        full = (shapes[0][2 + i] - 1) * strides[i] + extra[i] + (kernel[i] - 1) * dilations[i] + 1
        total = max(full - outs[0][2 + i], 0)
        before.append(total // 2 if mode == "SAME_UPPER" else total - total // 2)
    return before


def _by_definition(
    node: Node,
    build: KerasBuilder,
    x: Tensor,
    stored: Sequence[int],
    before: Sequence[int],
    outs: Sequence[Sizes],
) -> Any:
    """Zeros between the pixels, then a convolution with the flipped kernel."""
    rank = x.rank - 2
    strides = node.get("strides", (1,) * rank)
    dilations = node.get("dilations", (1,) * rank)
    groups = node.get("group", 1)
    shapes = [[s[0], *s[2:], s[1]] for s in x.shapes]
    y = x.keras
    pads: list[tuple[int, int]] = []
    for i in range(rank):
        y, shapes = _spread(node, build, y, shapes, 1 + i, strides[i])
        extent = (stored[2 + i] - 1) * dilations[i] + 1
        left = extent - 1 - before[i]
        right = {o[2 + i] - s[1 + i] + before[i] for o, s in zip(outs, shapes, strict=True)}
        if len(right) > 1:
            raise refuse(node, "its padding depends on a free size")
        pads.append((left, right.pop()))
    cut = [(max(-left, 0), max(-right, 0)) for left, right in pads]
    if any(a or b for a, b in cut):
        amount = cut[0] if rank == 1 else tuple(cut)
        y = build.layer(node, f"Cropping{rank}D", suffix="_crop", cropping=amount)(y)
    y = zero_pad(node, build, y, [(max(left, 0), max(right, 0)) for left, right in pads])
    windows = [
        Window((1,), stored[2 + i], 1, dilations[i], 0, 0, same_upper=False, ceil=False)
        for i in range(rank)
    ]
    kernel = _Kernel(groups, int(stored[0] // groups), flip=True)
    return _convolution(node, build, y, windows, "valid", kernel, stored)


def _spread(
    node: Node, build: KerasBuilder, x: Any, shapes: list[list[int]], axis: int, stride: int
) -> tuple[Any, list[list[int]]]:
    """Put stride - 1 zeros behind every element along a Keras axis."""
    if stride == 1:
        return x, shapes
    apart = [(s[0], int(np.prod(s[1 : axis + 1])), 1, int(np.prod(s[axis + 1 :]))) for s in shapes]
    wide = [[*s[:axis], s[axis] * stride, *s[axis + 1 :]] for s in shapes]
    between = [(a[0], a[1], stride, a[3]) for a in apart]
    name = f"{node.name}_spread{axis}"
    y = build.reshape(x, [tuple(s) for s in shapes], apart, name)
    y = build.apply(node, "pad", y, ((0, 0), (0, 0), (0, stride - 1), (0, 0)))
    return build.reshape(y, between, [tuple(s) for s in wide], name), wide
