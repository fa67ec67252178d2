"""Three-factor blocks: pointwise → depthwise → pointwise, with R channels between.

Every sum of T pairs is such a block: depthwise first with R = T·C and an identity in front,
pointwise first with R = T·N and an identity behind.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from dsconvert.base.predictor import Array

from ..types import (
    Branch,
    Choice,
    Depthwise,
    Factorization,
    Float,
    Pointwise,
    as_float,
    error_between,
)
from .pairs import Pairs

NAME = "three-factor"
"""Of the block style."""


@dataclass(frozen=True, kw_only=True)
class ThreeFactors(Factorization):
    """A 1×1, a depthwise and another 1×1 convolution that stand for one kernel W (kh, kw, C, N).

    W[a, b, c, n] ≈ Σ_r pointwise_in[c, r] · depthwise[a, b, r] · pointwise_out[r, n]

    Nothing is between them, thus this is a sum of R rank-one terms: a CP decomposition.

    Attributes:
        pointwise_in: (C, R).
        depthwise: (kh, kw, R).
        pointwise_out: (R, N).
        cancellation: Σ_r Var(term r) / Var(y): 1 if the terms are uncorrelated, more if they cancel
            each other, which costs accuracy in 8 bits. None without data.
    """

    pointwise_in: Float
    depthwise: Float
    pointwise_out: Float
    cancellation: float | None = None

    @property
    def channels(self) -> int:
        """R."""
        return int(self.depthwise.shape[-1])

    @property
    def choice(self) -> Choice:
        """Return what this is, with nothing left open."""
        return Choice(block=NAME, channels=self.channels)

    def kernel(self) -> Float:
        """Return the kernel that these factors stand for, (kh, kw, C, N)."""
        kh, kw, R = self.depthwise.shape
        C, N = len(self.pointwise_in), self.pointwise_out.shape[1]
        spread = self.depthwise.reshape(kh * kw, 1, R) * self.pointwise_in  # (k², C, R)
        return as_float((spread.reshape(-1, R) @ self.pointwise_out).reshape(kh, kw, C, N))

    def scaled(self, gain: Float) -> ThreeFactors:
        """Return the block of the kernel W·gain, where gain (N,) scales the outputs."""
        return replace(self, pointwise_out=self.pointwise_out * gain)

    def branches(self) -> list[Branch]:
        """Return one branch of three layers."""
        first, last = Pointwise(self.pointwise_in, "in"), Pointwise(self.pointwise_out, "out")
        return [(first, Depthwise(self.depthwise[..., None]), last)]


def from_pairs(pairs: Pairs) -> ThreeFactors:
    """Write a sum of pairs with nothing between their kernels as a three-factor block.

    Args:
        pairs: T pairs; depthwise first they become T·C channels, pointwise first T·N.

    Raises:
        ValueError: If something is between the two kernels.
    """
    if pairs.between is not None:
        raise ValueError("pairs with an activation between them are no sum of rank-one terms")
    T, kh, kw, G = pairs.depthwise.shape
    taps = pairs.depthwise.transpose(1, 2, 0, 3).reshape(kh, kw, T * G)
    mixers = pairs.pointwise  # (T, C, N)
    if pairs.order == "depthwise-first":
        first, last = np.tile(np.eye(G), (1, T)), mixers.reshape(T * G, -1)
    else:
        first = mixers.transpose(1, 0, 2).reshape(-1, T * G)
        last = np.tile(np.eye(G), (T, 1))
    return ThreeFactors(
        pointwise_in=first,
        depthwise=taps,
        pointwise_out=last,
        bias=pairs.bias,
        weight_error=pairs.weight_error,
        data_error=pairs.data_error,
        notes=pairs.notes,
    )


def random_factors(
    kernel: Array, bias: Array | None, channels: int, rng: np.random.Generator
) -> ThreeFactors:
    """Draw a fresh block as Keras initialises its layers: Glorot uniform, and a bias of zero.

    Args:
        kernel: W, (kh, kw, C, N), whose place it takes.
        bias: (N,) or None.
        channels: R.
        rng: Draws the factors.
    """
    kh, kw, C, N = kernel.shape
    R = channels

    def glorot(shape: tuple[int, ...], fans: int) -> Float:
        limit = np.sqrt(6.0 / fans)
        return rng.uniform(-limit, limit, shape)

    made = ThreeFactors(
        pointwise_in=glorot((C, R), C + R),
        depthwise=glorot((kh, kw, R), kh * kw * R + kh * kw),
        pointwise_out=glorot((R, N), R + N),
        bias=None if bias is None else np.zeros(N),
        weight_error=0.0,
    )
    return replace(made, weight_error=error_between(kernel, made.kernel()))


def rescaled(factors: ThreeFactors, before: Float, after: Float) -> ThreeFactors:
    """Multiply the R channels before and after the depthwise convolution; the function stays.

    Args:
        factors: The block.
        before: (R,) for the outputs of the first convolution, positive.
        after: (R,) for those of the depthwise, positive.
    """
    return replace(
        factors,
        pointwise_in=factors.pointwise_in * before,
        depthwise=factors.depthwise * (after / before),
        pointwise_out=factors.pointwise_out / after[:, None],
    )
