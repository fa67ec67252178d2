"""A target for plans whose costs are made up."""

from __future__ import annotations

import numpy as np

from dsconvert.converter.core.planning.cost_model import BlockCosts
from dsconvert.converter.core.types import ORDERS, Figure

DW, PW = ORDERS
NOISE = 0.05


class FakeCosts:
    """A target whose costs are a function of the block and the choice; None for the convolution."""

    unit, target = "ms", "a fake clock"

    def __init__(self, cost):
        self.cost = cost
        self.asked = []

    def costs(self, blocks):
        self.asked += blocks
        return [
            BlockCosts(
                original=Figure(value=self.cost(block, None)),
                choices=tuple(self._figure(block, choice) for choice in choices),
            )
            for block, choices in blocks
        ]

    def _figure(self, block, choice):
        value = self.cost(block, choice)
        if value is None:
            return None
        ratio = value / self.cost(block, None)
        return Figure(
            value=value,
            ratio_low=ratio * (1 - NOISE),
            ratio_high=ratio * (1 + NOISE),
            faster=ratio * (1 + NOISE) < 1,
        )


def by_macs(block, choice):
    """Milliseconds as the MACs, on blocks whose kernel is 3×3 and whose size stays."""
    pixels, C, N = np.prod(block.input_size), block.in_channels, block.out_channels
    macs = pixels * 9 * C * N
    if choice is not None:
        macs = choice.pairs * pixels * (9 * (C if choice.order == DW else N) + C * N)
    return float(macs) * 1e-6


def flat(original, **pairs):
    """Every convolution takes ``original`` ms; "dw1" … the pairs, the others twice as long."""

    def cost(block, choice):
        if choice is None:
            return original
        kind = {"depthwise-first": "dw", "pointwise-first": "pw", "auto": "block"}[choice.order]
        kind = "multiplier" if choice.lowering == "multiplier" else kind
        return pairs.get(f"{kind}{choice.pairs}", 2 * original)

    return FakeCosts(cost)
