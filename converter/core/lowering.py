"""How T pairs are written down in a network: as branches that are summed, or as one."""

from __future__ import annotations

from dataclasses import dataclass

from .types import Factorization, Float


@dataclass(frozen=True)
class Branch:
    """One depthwise and one pointwise convolution, in the order of their factorization.

    Attributes:
        depthwise: (kh, kw, G, m): G channels, each with m outputs, which follow each other.
        pointwise: (C·m, N) depthwise first, (C, N) pointwise first.
    """

    depthwise: Float
    pointwise: Float


def branches(factors: Factorization) -> list[Branch]:
    """What is summed: T branches of one pair each, or one with depth_multiplier T."""
    if factors.lowering == "multiplier" and factors.order == "depthwise-first":
        T, C, N = factors.pointwise.shape
        return [
            Branch(
                factors.depthwise.transpose(1, 2, 3, 0),
                factors.pointwise.transpose(1, 0, 2).reshape(C * T, N),
            )
        ]
    return [
        Branch(depthwise[..., None], pointwise)
        for depthwise, pointwise in zip(factors.depthwise, factors.pointwise, strict=True)
    ]
