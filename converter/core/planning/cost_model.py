"""What is timed when a plan is made: one convolution, and what it may become, at its true shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import msgspec

from ..types import Choice, ConvSpec, Figure, Padding, Size

Activation = Literal["none", "relu", "relu6"]
"""What runtimes fuse into a convolution; anything else is timed as "none"."""


class Block(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A convolution with its bias and activation, on one image of a known size.

    Two layers of the same block take the same time, so a block has no name.

    Attributes:
        input_size: (H, W).
        in_channels: C.
        out_channels: N.
        kernel_size: (kh, kw).
        strides: (vertical, horizontal).
        dilation: (vertical, horizontal).
        padding: As in `ConvSpec`.
        activation: What follows.
    """

    input_size: Size
    in_channels: int
    out_channels: int
    kernel_size: Size
    strides: Size = (1, 1)
    dilation: Size = (1, 1)
    padding: Padding = "same"
    activation: Activation = "none"

    @property
    def spec(self) -> ConvSpec:
        """Its geometry, as of a layer called "block"."""
        return ConvSpec(
            name="block",
            kernel_size=self.kernel_size,
            strides=self.strides,
            dilation=self.dilation,
            padding=self.padding,
            in_channels=self.in_channels,
            out_channels=self.out_channels,
            input_sizes=(self.input_size,),
        )

    @property
    def text(self) -> str:
        """In words, e.g. "3×3 convolution 64→128 on 28×28, strides 2×2"."""
        sizes = {"strides": self.strides, "dilation": self.dilation}
        text = "×".join(map(str, self.kernel_size)) + " convolution "
        text += f"{self.in_channels}→{self.out_channels} on {'×'.join(map(str, self.input_size))}"
        for name, (vertical, horizontal) in sizes.items():
            if (vertical, horizontal) != (1, 1):
                text += f", {name} {vertical}×{horizontal}"
        return text + ("" if self.padding == "same" else f", padding {self.padding}")


def block_of(spec: ConvSpec, input_size: Size, activation: Activation) -> Block:
    """Return the block of a convolution at one input size."""
    return Block(
        input_size=input_size,
        in_channels=spec.in_channels,
        out_channels=spec.out_channels,
        kernel_size=spec.kernel_size,
        strides=spec.strides,
        dilation=spec.dilation,
        padding=spec.padding,
        activation=activation,
    )


class BlockCosts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The cost of a block and of what may replace it, measured together.

    Attributes:
        original: The convolution.
        choices: One figure per choice; None where the target cannot run it.
    """

    original: Figure
    choices: tuple[Figure | None, ...]


class CostModel(Protocol):
    """Tells what blocks cost on a target."""

    @property
    def unit(self) -> str:
        """Either "ms" or "cycles"."""

    @property
    def target(self) -> str:
        """The target in words, e.g. "LiteRT float32, 1 thread, Intel Xeon"."""

    def costs(self, blocks: Sequence[tuple[Block, Sequence[Choice]]]) -> list[BlockCosts]:
        """Give the costs of each block and of its choices, from the cache where they are known."""
