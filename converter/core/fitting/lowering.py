"""How T pairs are written down in a network: as branches that are summed, or as one."""

from __future__ import annotations

from dataclasses import dataclass
from operator import itemgetter

from ..types import Factorization, Float, NormActivation


@dataclass(frozen=True)
class Branch:
    """One depthwise and one pointwise convolution, in the order of their factorization.

    Attributes:
        depthwise: (kh, kw, G, m): G channels, each with m outputs, which follow each other.
        pointwise: (C·m, N) depthwise first, (C, N) pointwise first.
        between: What makes a MobileNet block of it, each array (C·m,); None for nothing.
    """

    depthwise: Float
    pointwise: Float
    between: NormActivation | None = None


def branches(factors: Factorization) -> list[Branch]:
    """What is summed: T branches of one pair each, or one with depth_multiplier T."""
    between = factors.between
    if factors.lowering == "multiplier" and factors.order == "depthwise-first":
        T, C, N = factors.pointwise.shape
        return [
            Branch(
                factors.depthwise.transpose(1, 2, 3, 0),
                factors.pointwise.transpose(1, 0, 2).reshape(C * T, N),
                None if between is None else between.each(lambda array: array.T.ravel()),
            )
        ]
    return [
        Branch(
            factors.depthwise[t][..., None],
            factors.pointwise[t],
            None if between is None else between.each(itemgetter(t)),
        )
        for t in range(factors.pairs)
    ]
