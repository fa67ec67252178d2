"""What blocks of some widths do to the network, told from what wider and narrower ones do.

The error of a three-factor block falls steadily with its number of channels R, and that of a sum of
pairs with their number T, so that where each size takes long to be tried, not every one has to be
to choose one. Its logarithm lies nearly on a line: on VGG6's layers of 64 to 256 channels within
5 % in R, and for T = 3 within 4 %, pointwise first on one of 64 within 11 %. The error of the whole
network's outputs, of a few held-out images, varies more than that from size to size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import msgspec

from ..types import Choice, ConvSpec, Effect

_WIDE = 1152
"""Features, C·k², from which on fits take long."""
_LONG = 1e10
"""MACs from which on it takes long to see what a choice does to the network's outputs."""
_APART = 2.1
"""How many times as large the next choice that is fitted is at most, where there are so many."""


def takes_long(spec: ConvSpec, pass_macs: float) -> bool:
    """Tell whether it takes long to try a choice for a layer.

    Args:
        spec: The layer.
        pass_macs: MACs of the held-out images' way through the network.
    """
    return spec.taps * spec.in_channels >= _WIDE or pass_macs >= _LONG


def between_others(choices: Sequence[Choice]) -> dict[Choice, tuple[Choice, Choice]]:
    """Find the choices that need no fit, each with the smaller and the larger one that get one.

    Args:
        choices: Of one layer, of any style; only those that differ in nothing but their size are
            compared.
    """
    alike: dict[Choice, list[Choice]] = {}
    for choice in choices:
        alike.setdefault(msgspec.structs.replace(choice, **{_sized(choice): 1}), []).append(choice)
    found: dict[Choice, tuple[Choice, Choice]] = {}
    for group in alike.values():
        found |= _between(sorted(group, key=_size))
    return found


def _between(choices: Sequence[Choice]) -> dict[Choice, tuple[Choice, Choice]]:
    """Find them among choices that differ in their size alone, the smallest first."""
    sizes = [_size(choice) for choice in choices]
    found, first = {}, 0
    while first < len(choices) - 1:
        within = [n for n, size in enumerate(sizes) if size <= _APART * sizes[first]]
        last = max(first + 1, within[-1])
        for place in range(first + 1, last):
            found[choices[place]] = (choices[first], choices[last])
        first = last
    return found


def interpolated(
    choice: Choice, below: Choice, above: Choice, effect_below: Effect, effect_above: Effect
) -> Effect:
    """Return the effect of a choice between those of a smaller and a larger one.

    Args:
        choice: A block, or pairs.
        below: The smaller one.
        above: The larger one.
        effect_below: Its effect.
        effect_above: That of the larger one.
    """
    share = (_size(choice) - _size(below)) / (_size(above) - _size(below))

    def between(low: float, high: float) -> float:
        if min(low, high) <= 0 or not math.isfinite(low + high):  # no logarithm: the worse one
            return max(low, high)
        return math.exp((1 - share) * math.log(low) + share * math.log(high))

    return Effect(
        data_error=between(effect_below.data_error, effect_above.data_error),
        output_error=between(effect_below.output_error, effect_above.output_error),
    )


def _sized(choice: Choice) -> Literal["channels", "pairs"]:
    """Name the number that tells how large a choice is: R of a block, T of pairs."""
    return "pairs" if choice.channels is msgspec.UNSET else "channels"


def _size(choice: Choice) -> int:
    size = getattr(choice, _sized(choice))
    assert isinstance(size, int), "R, or else T"
    return size
