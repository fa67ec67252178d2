"""A budget of MACs for a whole network, shared out evenly: without a search and without data."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from dsconvert.base.errors import InputError
from dsconvert.base.units import short

from ..fitting.cost import conv_macs
from ..fitting.styles import block_style
from ..types import Choice, ConvSpec, Plan
from .limits import Limit

_HALVINGS = 50


def within_macs(plan: Plan, total: int | None, limit: Limit, block: str) -> Plan:
    """Make the chosen layers of a plan as large as a budget allows, each at the same share.

    Args:
        plan: Which layers are rewritten.
        total: The network's MACs; None where its size is free.
        limit: The most that may be left of them.
        block: The block style of all layers.

    Returns:
        The plan with other choices. Widths and numbers of pairs are whole numbers, thus the share
        is the largest with which the network still keeps the budget.

    Raises:
        InputError: If the MACs are unknown, or the smallest blocks still have more.
    """
    style = block_style(block)
    specs: dict[str, ConvSpec] = {
        layer.name: layer.spec
        for layer in plan.layers
        if layer.choice is not None and layer.spec is not None
    }
    whole = {name: conv_macs(spec) for name, spec in specs.items()}
    known = {name: macs for name, macs in whole.items() if macs is not None}
    if total is None or len(known) < len(whole):
        raise InputError(
            "the network's MACs are unavailable: the input has no fixed size.",
            "Give it with --input-size HxW; or use --pairs T, or plan with --target-macs, which "
            "takes the calibration images' size.",
            code="free-size",
        )
    rest = total - sum(known.values())

    def choices(share: float) -> dict[str, Choice]:
        return {name: style.within(specs[name], share * macs) for name, macs in known.items()}

    def macs(chosen: Mapping[str, Choice]) -> int:
        each = (block_style(c.block).macs(specs[name], c) for name, c in chosen.items())
        return rest + sum(found or 0 for found in each)

    budget, least = limit.of(total), choices(0.0)
    if macs(least) > budget:
        raise InputError(
            f"--macs {limit.text} is {short(budget)}; the smallest blocks leave "
            f"{short(macs(least))} of {short(total)} MACs.",
            "Allow more, or let more layers be rewritten.",
            code="budget-too-small",
        )
    low, high = 0.0, 1.0
    if macs(choices(high)) <= budget:
        low = high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if macs(choices(middle)) <= budget else (low, middle)
    best = choices(low)
    layers = tuple(
        msgspec.structs.replace(layer, choice=best.get(layer.name, layer.choice))
        for layer in plan.layers
    )
    return msgspec.structs.replace(plan, goal=(f"MACs ≤ {limit.text}",), layers=layers)
