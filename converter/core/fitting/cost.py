"""MACs and parameters: of a convolution, and of the pairs that may replace it.

One multiply-accumulate is one MAC; biases and activations are not counted, as in MobileNet
(Howard et al., arXiv:1704.04861), whose cost model this is.
"""

from __future__ import annotations

import msgspec

from ..types import ORDERS, ConvSpec, Order, Size
from .patches import output_size


def output_pixels(spec: ConvSpec, size: Size) -> int:
    """Output positions of one call on an input of ``size`` (H, W)."""
    height, width = output_size(spec, size)
    return height * width


def conv_macs(spec: ConvSpec) -> int | None:
    """MACs of the convolution over all its calls; None where a size is free."""
    per_pixel = spec.taps * (spec.in_channels // spec.groups) * spec.out_channels
    total = 0
    for size in spec.input_sizes:
        if size is None:
            return None
        total += per_pixel * output_pixels(spec, size)
    return total


def conv_params(spec: ConvSpec) -> int:
    """Weights and biases of the convolution."""
    weights = spec.taps * (spec.in_channels // spec.groups) * spec.out_channels
    return weights + spec.out_channels * spec.use_bias


def pair_macs(spec: ConvSpec, order: Order, pairs: int) -> int | None:
    """MACs of ``pairs`` pairs over all calls; None where a size is free.

    Depthwise first, both run at the output's resolution: T·C·(k² + N) per pixel, which for T = 1
    is 1/N + 1/k² of the convolution. Pointwise first, the pointwise runs at the input's.
    """
    C, N = spec.in_channels, spec.out_channels
    total = 0
    for size in spec.input_sizes:
        if size is None:
            return None
        pixels = output_pixels(spec, size)
        if order == "depthwise-first":
            total += pairs * pixels * C * (spec.taps + N)
        else:
            total += pairs * (size[0] * size[1] * C * N + pixels * N * spec.taps)
    return total


def pair_params(spec: ConvSpec, order: Order, pairs: int, *, bias: bool) -> int:
    """Weights of ``pairs`` pairs, and the one bias of the last operation."""
    C, N = spec.in_channels, spec.out_channels
    depthwise = C if order == "depthwise-first" else N
    return pairs * (spec.taps * depthwise + C * N) + N * bias


def block_macs(spec: ConvSpec, channels: int) -> int | None:
    """MACs of a three-factor block of R ``channels`` over all calls; None where a size is free.

    The first 1×1 runs at the input's resolution, the other two at the output's: R·(C·s² + k² + N)
    per output pixel at stride s.
    """
    total = 0
    for size in spec.input_sizes:
        if size is None:
            return None
        outside = size[0] * size[1] * spec.in_channels
        total += channels * (outside + output_pixels(spec, size) * (spec.taps + spec.out_channels))
    return total


def block_params(spec: ConvSpec, channels: int, *, bias: bool) -> int:
    """Weights of a three-factor block of R ``channels``, and the one bias of its last layer."""
    weights = channels * (spec.in_channels + spec.taps + spec.out_channels)
    return weights + spec.out_channels * bias


def channels_within(spec: ConvSpec, macs: float, multiple: int = 8) -> int:
    """Return the most channels R of a three-factor block that costs no more than ``macs``.

    Runtimes work on blocks of channels, thus R is a multiple of one: 34 channels took longer than
    40 where it was measured.

    Args:
        spec: The convolution; its sizes must be known.
        macs: The budget, over all calls.
        multiple: The runtime's block of channels.

    Returns:
        A multiple of ``multiple``; 0 if not even one fits.

    Raises:
        ValueError: If an input size is free.
    """
    each = block_macs(spec, 1)
    if each is None:
        raise ValueError(f"{spec.name}: MACs of a free input size")
    return int(macs // (each * multiple)) * multiple if each else 0


def channels_of_pairs(spec: ConvSpec, pairs: float, multiple: int = 8) -> int:
    """Return the most channels R of a three-factor block within the MACs of depthwise-first pairs.

    Args:
        spec: The convolution; sizes left free are judged on a nominal image.
        pairs: T, which may be a fraction here.
        multiple: The runtime's block of channels. Where less than one fits, any number will do.

    Returns:
        R, at least 1.
    """
    known = _sized(spec)
    budget = pairs * (pair_macs(known, "depthwise-first", 1) or 0)
    return channels_within(known, budget, multiple) or channels_within(known, budget, 1) or 1


def pairs_within(spec: ConvSpec, macs: float) -> int:
    """Return how many depthwise-first pairs cost no more than ``macs``; 0 if not even one fits.

    Raises:
        ValueError: If an input size is free.
    """
    each = pair_macs(spec, "depthwise-first", 1)
    if each is None:
        raise ValueError(f"{spec.name}: MACs of a free input size")
    return int(macs // each) if each else 0


_NOMINAL: Size = (224, 224)


def _sized(spec: ConvSpec) -> ConvSpec:
    """Put a nominal image where the size is free: only ratios count then."""
    sized = [size or _NOMINAL for size in spec.input_sizes] or [_NOMINAL]
    return msgspec.structs.replace(spec, input_sizes=tuple(sized))


def affordable_orders(spec: ConvSpec, pairs: int) -> tuple[Order, ...]:
    """Return the orders that cost no more than depthwise first, which is always one of them.

    Sizes left free are judged on a nominal image: only the ratio counts.
    """
    known = _sized(spec)
    limit = (pair_macs(known, "depthwise-first", pairs) or 0) * 1.02
    return tuple(o for o in ORDERS if (pair_macs(known, o, pairs) or 0) <= limit)
