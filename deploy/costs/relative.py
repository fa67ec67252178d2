"""Costs relative to a reference block: they stay right when the machine's speed does not.

A machine that is busy, warm or throttled takes longer for everything, by up to three quarters where
that was measured. The share of a block in the time of another one that took turns with it changes
far less. Shares are what is kept; times are made of them with what the reference block takes now.
"""

from __future__ import annotations

import msgspec

from dsconvert.converter.core.planning.cost_model import Block, BlockCosts
from dsconvert.converter.core.types import Figure

REFERENCE = Block(
    input_size=(28, 28),
    in_channels=32,
    out_channels=32,
    kernel_size=(3, 3),
    activation="relu",
)
"""7.2 M multiply-accumulates: long enough to be timed well, short beside most networks. What is
kept is worthless with another one: raise the cache's schema with it."""


class Measured(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one measurement found of a block.

    Attributes:
        costs: Of the block and of what may replace it, in the target's unit.
        reference: What the reference block took in the same rounds; None for costs that are the
            same at any time, as an NPU's cycles by estimate are.
    """

    costs: BlockCosts
    reference: float | None = None

    @property
    def shares(self) -> BlockCosts:
        """The costs as shares of the reference's; as they are where there is none."""
        return self.costs if self.reference is None else scaled(self.costs, 1 / self.reference)


def scaled(costs: BlockCosts, factor: float) -> BlockCosts:
    """Multiply all costs; what they are of the original stays."""

    def changed(figure: Figure) -> Figure:
        return msgspec.structs.replace(figure, value=figure.value * factor)

    return BlockCosts(
        original=changed(costs.original),
        choices=tuple(None if one is None else changed(one) for one in costs.choices),
    )
