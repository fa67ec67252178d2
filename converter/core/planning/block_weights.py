"""Weights for the blocks that are timed: what runtimes do does not depend on them."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace

import msgspec
import numpy as np

from dsconvert.base.errors import InputError

from ..fitting.patches import output_size, padding_of
from ..fitting.styles import block_style
from ..types import Choice, Factorization, Float, Size
from .cost_model import Block


@dataclass(frozen=True)
class BlockWeights:
    """One way to write a block: as the convolution itself, or as what may replace it.

    Attributes:
        kernel: (kh, kw, C, N), of the convolution.
        bias: (N,), in either case.
        factors: What replaces it; None for the convolution itself.
    """

    kernel: Float
    bias: Float
    factors: Factorization | None


def block_weights(block: Block, choice: Choice | None) -> BlockWeights:
    """Draw the weights of a block.

    The kernel's filters have length 1, so that white inputs keep their deviation. No two choices
    share weights: in one file a converter would compute once what they have in common.

    Args:
        block: The convolution.
        choice: What replaces it; None for the convolution itself.

    Raises:
        InputError: If nothing comes out of the block, or the choice leaves open what is written.
    """
    spec = block.spec
    if min(output_size(spec, block.input_size)) < 1 or min(block.input_size) < 1:
        raise InputError(
            f"{block.text}: the padded input is smaller than the kernel.", code="input-too-small"
        )
    rng = np.random.default_rng(zlib.crc32(msgspec.json.encode(choice)))
    kernel = rng.standard_normal((*spec.kernel_size, spec.in_channels, spec.out_channels))
    kernel /= np.sqrt(np.square(kernel).sum((0, 1, 2)))
    bias = 0.1 * rng.standard_normal(spec.out_channels)
    if choice is None:
        return BlockWeights(kernel, bias, None)
    style = block_style(choice.block)
    factors = style.random(kernel, bias, style.written(choice), rng)
    # Fresh norms are the same in all channels, as no trained ones are: converters take them for
    # something else.
    factors = factors.renormed(lambda norm: norm.each(lambda v: v + rng.uniform(0.1, 0.4, v.shape)))
    return BlockWeights(kernel, bias, replace(factors, bias=bias))


def block_padding(block: Block) -> tuple[tuple[Size, Size], bool]:
    """((top, bottom), (left, right)) in pixels, and whether that is TensorFlow's SAME."""
    same = msgspec.structs.replace(block.spec, padding="same")
    pads = padding_of(block.spec, block.input_size)
    return pads, pads == padding_of(same, block.input_size)
