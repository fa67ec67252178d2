"""Pairs of a depthwise and a pointwise convolution, and how they are written down."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from operator import itemgetter

import numpy as np

from ..types import (
    Branch,
    Choice,
    Depthwise,
    Factorization,
    Float,
    Lowering,
    NormActivation,
    Order,
    Pointwise,
)


@dataclass(frozen=True, kw_only=True)
class Pairs(Factorization):
    """T pairs that stand for one kernel W (kh, kw, C, N).

    depthwise-first:  W[a, b, c, n] ≈ Σ_t depthwise[t, a, b, c] · pointwise[t, c, n]
    pointwise-first:  W[a, b, c, n] ≈ Σ_t depthwise[t, a, b, n] · pointwise[t, c, n]

    With something between the two, which are then depthwise first, they stand for no kernel.

    Attributes:
        order: Which of the two comes first.
        depthwise: (T, kh, kw, C) or, pointwise first, (T, kh, kw, N).
        pointwise: (T, C, N).
        lowering: How T > 1 of them are written down; see `Choice`.
        between: What makes MobileNet blocks of them; None for pairs with nothing in between.
    """

    order: Order
    depthwise: Float
    pointwise: Float
    lowering: Lowering = "sum"
    between: NormActivation | None = None

    @property
    def pairs(self) -> int:
        """T."""
        return int(self.depthwise.shape[0])

    @property
    def choice(self) -> Choice:
        """Return what they are, with nothing left open."""
        block = "linear" if self.linear else "mobilenet"
        return Choice(pairs=self.pairs, order=self.order, lowering=self.lowering, block=block)

    @property
    def linear(self) -> bool:
        """Tell whether nothing stands between the two kernels."""
        return self.between is None

    def kernel(self) -> Float:
        """The kernel these pairs stand for, (kh, kw, C, N); what is between them is left out."""
        sides = "tabc,tcn->abcn" if self.order == "depthwise-first" else "tabn,tcn->abcn"
        return np.asarray(np.einsum(sides, self.depthwise, self.pointwise, optimize=True))

    def scaled(self, gain: Float) -> Pairs:
        """Return the pairs of the kernel W·gain, where gain (N,) scales the outputs."""
        if self.order == "depthwise-first":
            return replace(self, pointwise=self.pointwise * gain)
        return replace(self, depthwise=np.asarray(self.depthwise * gain))

    def renormed(self, change: Callable[[NormActivation], NormActivation]) -> Pairs:
        """Return the same with another norm between the two kernels."""
        return self if self.between is None else replace(self, between=change(self.between))

    def branches(self) -> list[Branch]:
        """T branches of one pair each, or one with depth_multiplier T."""
        between = self.between
        if self.lowering == "multiplier" and self.order == "depthwise-first":
            T, C, N = self.pointwise.shape
            deep = self.depthwise.transpose(1, 2, 3, 0)
            flat = self.pointwise.transpose(1, 0, 2).reshape(C * T, N)
            inner = None if between is None else between.each(lambda array: array.T.ravel())
            return [self._branch(deep, flat, inner)]
        return [
            self._branch(
                deep[..., None], flat, None if between is None else between.each(itemgetter(t))
            )
            for t, (deep, flat) in enumerate(zip(self.depthwise, self.pointwise, strict=True))
        ]

    def _branch(self, deep: Float, flat: Float, inner: NormActivation | None) -> Branch:
        depthwise, pointwise = Depthwise(deep), Pointwise(flat)
        if self.order == "pointwise-first":
            return (pointwise, depthwise)
        return (depthwise, pointwise) if inner is None else (depthwise, inner, pointwise)
