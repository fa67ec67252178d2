"""Sliding windows: kernel, strides, dilations and padding of convolutions and pools, per axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .builder import refuse
from .graph import Node
from .values import Sizes

_MANY_SIZES = 64
"""Where a size is free, claims about padding are tried on this many sizes."""


@dataclass(frozen=True)
class Window:
    """How a window slides along one axis.

    Attributes:
        sizes: The input's size along it, once per probe.
        kernel: The number of taps.
        stride: The step.
        dilation: The distance of two taps.
        before: The padding that the node asks for at the start.
        after: The same at the end.
        same_upper: Whether the padding is TensorFlow's SAME by its definition, for any size.
        ceil: Whether a last window that leaves the padded input counts.
    """

    sizes: Sizes
    kernel: int
    stride: int
    dilation: int
    before: int
    after: int
    same_upper: bool
    ceil: bool

    @property
    def extent(self) -> int:
        """From the first tap to the last."""
        return (self.kernel - 1) * self.dilation + 1

    @property
    def is_free(self) -> bool:
        """Tell whether the input's size is free."""
        return len(set(self.sizes)) > 1

    def count(self, size: int) -> int:
        """Return the number of windows, as ONNX counts them."""
        if self.same_upper:
            return -(-size // self.stride)
        room = size + self.before + self.after - self.extent
        if not self.ceil:
            return room // self.stride + 1
        count = -(-room // self.stride) + 1
        # A window that would start in the padding at the end is left out.
        return count - ((count - 1) * self.stride >= size + self.before)

    def needed(self, size: int) -> tuple[int, int]:
        """Return what has to stand before and after the input so that every window is whole."""
        reach = (self.count(size) - 1) * self.stride + self.extent
        if self.same_upper:
            total = max(reach - size, 0)
            return total // 2, total - total // 2
        return self.before, max(reach - size - self.before, 0)

    @property
    def padding(self) -> tuple[int, int]:
        """Explicit padding with which every window is whole and none is added.

        For a free size it is the padding that the node asks for; what rounding up adds comes on
        top, since a window that does not fit is dropped anyway.
        """
        if not self.is_free:
            return self.needed(self.sizes[0])
        return self.before, self.after + (self.stride - 1 if self.ceil else 0)

    @property
    def is_same(self) -> bool:
        """Tell whether TensorFlow's SAME padding is this one, for every size that can occur."""
        if self.same_upper:
            return True
        for size in self._possible():
            out = -(-size // self.stride)
            total = max((out - 1) * self.stride + self.extent - size, 0)
            if (total // 2, total - total // 2) != self.needed(size) or out != self.count(size):
                return False
        return True

    @property
    def is_valid(self) -> bool:
        """Tell whether there is no padding at all, for every size that can occur."""
        return all(self.needed(size) == (0, 0) for size in self._possible())

    def _possible(self) -> Sequence[int]:
        if not self.is_free:
            return self.sizes[:1]
        return range(self.extent, self.extent + _MANY_SIZES)


def read_windows(node: Node, shapes: Sequence[Sizes], kernel: Sequence[int]) -> tuple[Window, ...]:
    """Return the windows of a convolution or pool, one per spatial axis.

    Args:
        node: The node.
        shapes: The input's shape in ONNX axes, once per probe.
        kernel: The number of taps per spatial axis.

    Raises:
        InputError: If the padding depends on a free size in a way that no layer has.
    """
    rank = len(kernel)
    strides = node.get("strides", (1,) * rank)
    dilations = node.get("dilations", (1,) * rank)
    pads = node.get("pads", (0,) * (2 * rank))
    mode = node.get("auto_pad", "NOTSET") or "NOTSET"
    ceil = bool(node.get("ceil_mode", 0)) and mode == "NOTSET"
    windows = []
    for axis in range(rank):
        sizes = tuple(shape[2 + axis] for shape in shapes)
        before, after = pads[axis], pads[rank + axis]
        if mode in ("VALID", "SAME_UPPER"):
            before = after = 0
        if mode == "SAME_LOWER":
            extent = (kernel[axis] - 1) * dilations[axis] + 1
            totals = {
                max((-(-n // strides[axis]) - 1) * strides[axis] + extent - n, 0) for n in sizes
            }
            if len(set(sizes)) > 1 and strides[axis] > 1:
                raise refuse(
                    node,
                    "auto_pad SAME_LOWER with strides pads a free size in a way that no Keras "
                    "layer has",
                    "Fix the input's height and width, or give images: theirs are taken.",
                )
            total = totals.pop()
            before, after = total - total // 2, total // 2
        if before < 0 or after < 0:
            raise refuse(node, f"its pads {tuple(pads)} are negative", "Use a Slice before it.")
        windows.append(
            Window(
                sizes,
                kernel[axis],
                strides[axis],
                dilations[axis],
                before,
                after,
                mode == "SAME_UPPER",
                ceil,
            )
        )
    return tuple(windows)
