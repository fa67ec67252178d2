"""Pad, and what old opsets have beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..builder import KerasBuilder, refuse
from ..graph import Node
from ..layout import channels_last
from ..registry import op
from ..values import Tensor

Width = tuple[int, int]


@op("Pad")
def pad(node: Node, build: KerasBuilder) -> Tensor:
    """Constant, mirrored, repeated or wrapped values around; negative pads cut off first."""
    x = build.tensor(node)
    mode = node.get("mode", "constant")
    widths = [int(width) for width in build.setting(node, "pads", 1)]
    value = np.asarray(build.setting(node, "value", 2, 0.0)).ravel()
    axes = build.constant(node, 3)
    chosen = list(range(x.rank)) if axes is None else [int(axis) % x.rank for axis in axes]
    around = dict(
        zip(
            chosen,
            zip(widths[: len(chosen)], widths[len(chosen) :], strict=True),
            strict=True,
        )
    )
    stored = [around.get(axis, (0, 0)) for axis in x.order]
    tensor = cropped(node, build, x.keras, stored)
    pads = [(max(before, 0), max(after, 0)) for before, after in stored]
    if not any(map(any, pads)):
        return build.result(node, tensor, x.order)
    if mode == "constant":
        number = value[0] if value.size else np.float32(0)
        if number == 0 and x.order == channels_last(4) and not any(pads[0]) and not any(pads[3]):
            layer = build.layer(
                node, "ZeroPadding2D", padding=(pads[1], pads[2]), data_format="channels_last"
            )
            return build.result(node, layer(tensor), x.order)
        fill = number.item()
        tensor = build.apply(node, "pad", tensor, pads, constant_values=fill)
        return build.result(node, tensor, x.order)
    sizes = tensor.shape
    if mode == "reflect" and all(
        size is None or max(width) < size for width, size in zip(pads, sizes, strict=True)
    ):
        tensor = build.apply(node, "pad", tensor, pads, mode="reflect")
        return build.result(node, tensor, x.order)
    for axis, width in enumerate(pads):
        if any(width):
            tensor = _repeated(node, build, tensor, axis, width, mode)
    return build.result(node, tensor, x.order)


def _repeated(
    node: Node, build: KerasBuilder, tensor: Any, axis: int, width: Width, mode: str
) -> Any:
    """Pad one axis with values of its own."""
    size = tensor.shape[axis]
    if size is not None:  # NumPy knows which
        where = np.pad(np.arange(size, dtype=np.int32), width, mode=mode)  # type: ignore[call-overload]
        return build.apply(node, "take", tensor, where, axis=axis)
    if mode != "edge":
        raise refuse(node, f"padding an axis of free size in the mode {mode!r}")
    rank = len(tensor.shape)
    parts = [tensor]
    for side, count in enumerate(width):
        if count:
            edge = slice(-1, None) if side else slice(0, 1)
            key = tuple(edge if k == axis else slice(None) for k in range(rank))
            line = build.apply(node, "get_item", tensor, key)
            parts = [*parts, *[line] * count] if side else [*[line] * count, *parts]
    return build.apply(node, "concatenate", parts, axis=axis)


def cropped(node: Node, build: KerasBuilder, tensor: Any, widths: Sequence[Width]) -> Any:
    """Return the tensor without what negative widths cut off, in Keras axes."""
    key = tuple(
        slice(-before if before < 0 else None, after if after < 0 else None)
        for before, after in widths
    )
    if all(part == slice(None) for part in key):
        return tensor
    return build.apply(node, "get_item", tensor, key)
