"""What blocks of some widths do to the network, told from what wider and narrower ones do.

The error of a three-factor block falls steadily with its number of channels R, so that in a wide
layer, where each fit takes seconds, not every width has to be fitted to choose one. Its logarithm
lies nearly on a line in R: on a layer of 256 channels within 3 %.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from ..types import Choice, ConvSpec, Effect

_WIDE = 2304
"""Features, C·k², from which on a layer is wide."""
_APART = 2.1
"""How many times as wide the next block that is fitted is at most, where there are so many."""


def is_wide(spec: ConvSpec) -> bool:
    """Tell whether fits to a layer take long."""
    return spec.taps * spec.in_channels >= _WIDE


def between_others(choices: Sequence[Choice]) -> dict[Choice, tuple[Choice, Choice]]:
    """Find the blocks that need no fit, each with the narrower and the wider one that get one.

    Args:
        choices: Of one layer, of any style; those without a width all need a fit.
    """
    blocks = sorted((c for c in choices if c.channels is not msgspec.UNSET), key=_width)
    widths = [_width(block) for block in blocks]
    found, first = {}, 0
    while first < len(blocks) - 1:
        within = [n for n, width in enumerate(widths) if width <= _APART * widths[first]]
        last = max(first + 1, within[-1])
        for place in range(first + 1, last):
            found[blocks[place]] = (blocks[first], blocks[last])
        first = last
    return found


def interpolated(
    choice: Choice, below: Choice, above: Choice, effect_below: Effect, effect_above: Effect
) -> Effect:
    """Return the effect of a block between those of a narrower and a wider one.

    Args:
        choice: The block.
        below: The narrower one.
        above: The wider one.
        effect_below: Its effect.
        effect_above: That of the wider one.
    """
    share = (_width(choice) - _width(below)) / (_width(above) - _width(below))

    def between(low: float, high: float) -> float:
        if min(low, high) <= 0 or not math.isfinite(low + high):  # no logarithm: the worse one
            return max(low, high)
        return math.exp((1 - share) * math.log(low) + share * math.log(high))

    return Effect(
        data_error=between(effect_below.data_error, effect_above.data_error),
        output_error=between(effect_below.output_error, effect_above.output_error),
    )


def _width(choice: Choice) -> int:
    assert choice.channels is not msgspec.UNSET, "a block"
    return choice.channels
