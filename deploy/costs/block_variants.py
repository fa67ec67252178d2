"""The forms of a block: the convolution itself and what may replace it, as lists of operations.

Neither file format appears here, so that both say the same. Weights are random: what runtimes do
does not depend on them. Inputs are taken to be standard normal, and every filter has a length such
that the block's output is about standard normal too, so that quantized forms get plausible scales.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dsconvert.base.errors import InputError
from dsconvert.converter.core.planning.cost_model import Activation, Block
from dsconvert.converter.core.types import Choice, Size

Weights = NDArray[np.float32]
Pads = tuple[Size, Size]

NO_PADS: Pads = ((0, 0), (0, 0))
INPUT, OUTPUT = "x", "y"
_BIAS = 0.1
"""Deviation of the biases."""


@dataclass(frozen=True)
class Conv:
    """A convolution with a bias and an activation of its own.

    Attributes:
        source: Name of what it reads.
        target: Name of what it makes.
        kernel: (kh, kw, C, N), or, depthwise, (kh, kw, C, M) with M the depth multiplier.
        bias: (N,) or None.
        depthwise: Whether each channel has kernels of its own.
        strides: (vertical, horizontal).
        dilation: (vertical, horizontal).
        pads: ((top, bottom), (left, right)).
        activation: What follows.
        spread: About the standard deviation of the output before the activation.
    """

    source: str
    target: str
    kernel: Weights
    bias: Weights | None
    depthwise: bool
    strides: Size
    dilation: Size
    pads: Pads
    activation: Activation
    spread: float

    @property
    def channels(self) -> int:
        """Of the output: channel c and multiple m of a depthwise kernel make channel c·M + m."""
        inputs, multiple = self.kernel.shape[2:]
        return int(inputs * multiple if self.depthwise else multiple)


@dataclass(frozen=True)
class Add:
    """A sum of two tensors of one shape, with its activation; names as in `Conv`."""

    sources: tuple[str, str]
    target: str
    activation: Activation
    spread: float


@dataclass(frozen=True)
class Form:
    """One way to write a block.

    Attributes:
        block: What it stands for.
        pads: The block's padding in numbers, ((top, bottom), (left, right)).
        is_same: Whether that is what TensorFlow calls SAME.
        steps: The operations in order; the first reads `INPUT`, the last makes `OUTPUT`.
        kernel: (kh, kw, C, N), the convolution that this form computes, for checking.
        bias: (N,), its bias.
    """

    block: Block
    pads: Pads
    is_same: bool
    steps: tuple[Conv | Add, ...]
    kernel: NDArray[np.float64]
    bias: Weights


def describe(block: Block) -> str:
    """The block in words, e.g. "3×3 convolution 64→128 on 28×28, strides 2×2"."""
    sizes = {"strides": block.strides, "dilation": block.dilation}
    text = "×".join(map(str, block.kernel_size)) + " convolution "
    text += f"{block.in_channels}→{block.out_channels} on {'×'.join(map(str, block.input_size))}"
    for name, (vertical, horizontal) in sizes.items():
        if (vertical, horizontal) != (1, 1):
            text += f", {name} {vertical}×{horizontal}"
    return text + ("" if block.padding == "same" else f", padding {block.padding}")


def plain(choice: Choice) -> Choice:
    """The choice as it is written down: a multiplier of one is a plain pair.

    Raises:
        InputError: If it cannot be written down as it is.
    """
    if choice.pairs < 1 or choice.order == "auto":
        raise InputError(
            f"only 1 or more pairs of a definite order have a cost, got {choice.pairs} pairs, "
            f"order {choice.order}."
        )
    if choice.lowering == "multiplier" and choice.order != "depthwise-first":
        raise InputError(
            f"a depth multiplier needs the depthwise convolution first, got {choice.order}."
        )
    return Choice(pairs=1, order=choice.order) if choice.pairs == 1 else choice


def form_of(block: Block, choice: Choice | None, seed: int = 0) -> Form:
    """Write a block as itself or as a choice says.

    Args:
        block: The convolution.
        choice: What replaces it; None for the convolution itself.
        seed: Of the weights.

    Raises:
        InputError: If nothing comes out of the block, or the choice cannot be written down.
    """
    pads, is_same = _pads(block)
    rng = np.random.default_rng(seed)
    bias = (_BIAS * rng.standard_normal(block.out_channels)).astype(np.float32)
    if choice is None:
        kernel = _filters(rng, (*block.kernel_size, block.in_channels, block.out_channels))
        steps: tuple[Conv | Add, ...] = (
            _conv(block, kernel, pads, depthwise=False, bias=bias, activation=block.activation),
        )
        whole = kernel.astype(np.float64)
    else:
        steps, whole = _pairs(block, plain(choice), pads, bias, rng)
    return Form(block, pads, is_same, steps, whole, bias)


def _pairs(
    block: Block, choice: Choice, pads: Pads, bias: Weights, rng: np.random.Generator
) -> tuple[tuple[Conv | Add, ...], NDArray[np.float64]]:
    """The operations of T pairs, and the kernel they stand for."""
    count, depthwise_first = choice.pairs, choice.order == "depthwise-first"
    share = count**-0.5  # of the output's deviation: T independent branches add up to 1
    inputs, outputs = block.in_channels, block.out_channels
    thin = inputs if depthwise_first else outputs
    deep = np.stack([_filters(rng, (*block.kernel_size, 1, thin))[:, :, 0] for _ in range(count)])
    point = np.stack([_filters(rng, (1, 1, inputs, outputs))[0, 0] for _ in range(count)])
    point = np.asarray(point * np.float32(share))
    sides = "tabc,tcn->abcn" if depthwise_first else "tabn,tcn->abcn"
    whole = np.einsum(sides, deep.astype(np.float64), point.astype(np.float64), optimize=True)
    if choice.lowering == "multiplier":
        tall = deep.transpose(1, 2, 3, 0)  # (kh, kw, C, T)
        wide = point.transpose(1, 0, 2).reshape(1, 1, inputs * count, outputs)  # row c·T + t
        between = _conv(block, tall, pads, depthwise=True, target="between")
        last = _pointwise(wide, between.target, OUTPUT, bias, block.activation, 1.0)
        return (between, last), whole
    steps: list[Conv | Add] = []
    for t in range(count):
        final, alone = t == count - 1, count == 1
        target, middle = (OUTPUT if alone else f"pair{t}"), f"between{t}"
        ending = block.activation if alone else "none"
        own_bias = bias if final else None
        kernel = deep[t][:, :, :, np.newaxis]  # (kh, kw, C or N, 1)
        flat = point[t][np.newaxis, np.newaxis]
        if depthwise_first:
            steps += [
                _conv(block, kernel, pads, depthwise=True, target=middle),
                _pointwise(flat, middle, target, own_bias, ending, share),
            ]
        else:
            first = _pointwise(flat, INPUT, middle, None, "none", share)
            second = _conv(block, kernel, pads, depthwise=True, bias=own_bias, activation=ending)
            steps += [first, replace(second, source=middle, target=target, spread=share)]
        if t > 0:
            before = "pair0" if t == 1 else f"sum{t - 1}"
            name, ending = (OUTPUT, block.activation) if final else (f"sum{t}", "none")
            steps.append(Add((before, target), name, ending, ((t + 1) / count) ** 0.5))
    return tuple(steps), np.asarray(whole)


def _conv(
    block: Block,
    kernel: Weights,
    pads: Pads,
    *,
    depthwise: bool,
    bias: Weights | None = None,
    activation: Activation = "none",
    target: str = OUTPUT,
) -> Conv:
    """A convolution of the block's geometry that reads the block's input."""
    geometry = (block.strides, block.dilation, pads)
    return Conv(INPUT, target, kernel, bias, depthwise, *geometry, activation, 1.0)


def _pointwise(
    kernel: Weights,
    source: str,
    target: str,
    bias: Weights | None,
    activation: Activation,
    spread: float,
) -> Conv:
    """A 1×1 convolution, (1, 1, C, N)."""
    ones = (1, 1)
    return Conv(source, target, kernel, bias, False, ones, ones, NO_PADS, activation, spread)


def _filters(rng: np.random.Generator, shape: tuple[int, int, int, int]) -> Weights:
    """Random filters (kh, kw, C, N), each of length 1: white inputs keep their deviation."""
    kernel = rng.standard_normal(shape, np.float32)
    return np.asarray(kernel / np.sqrt(np.square(kernel).sum((0, 1, 2))))


def _pads(block: Block) -> tuple[Pads, bool]:
    """The block's padding in numbers, and whether it is TensorFlow's SAME."""
    reaches = _reaches(block.kernel_size, block.dilation)
    total = [
        max((-(-size // stride) - 1) * stride + reach - size, 0)
        for size, stride, reach in zip(block.input_size, block.strides, reaches, strict=True)
    ]
    same = (
        (total[0] // 2, total[0] - total[0] // 2),
        (total[1] // 2, total[1] - total[1] // 2),
    )
    pads: Pads
    if block.padding == "same":
        pads = same
    elif block.padding == "same-lower":
        pads = (same[0][::-1], same[1][::-1])
    else:
        pads = NO_PADS if block.padding == "valid" else block.padding
    for size, side, reach in zip(block.input_size, pads, reaches, strict=True):
        if size < 1 or min(side) < 0 or size + sum(side) < reach:
            raise InputError(f"{describe(block)}: the padded input is smaller than the kernel.")
    return pads, pads == same


def shapes(form: Form) -> dict[str, tuple[int, int, int]]:
    """(H, W, channels) of everything that the form reads or makes, by name."""
    found = {INPUT: (*form.block.input_size, form.block.in_channels)}
    for step in form.steps:
        if isinstance(step, Add):
            found[step.target] = found[step.sources[0]]
            continue
        height, width = (
            (found[step.source][axis] + sum(step.pads[axis]) - reach) // step.strides[axis] + 1
            for axis, reach in enumerate(_reaches(step.kernel.shape[:2], step.dilation))
        )
        found[step.target] = (height, width, step.channels)
    return found


def _reaches(kernel_size: Sequence[int], dilation: Size) -> list[int]:
    """How many pixels a kernel spans, (vertical, horizontal)."""
    return [(k - 1) * d + 1 for k, d in zip(kernel_size, dilation, strict=True)]
