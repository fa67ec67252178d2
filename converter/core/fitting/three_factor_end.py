"""How a three-factor fit ends: its channels get a scale, and the block its bias and errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dsconvert.base.predictor import Array

from ..types import Float, error_between
from .cp_objective import Seen
from .factorize import by_channel
from .moments import Statistics
from .three_factor import ThreeFactors, rescaled

_CANCELLING = 5.0
"""Σ_r Var(term r) / Var(y) from which the reader is told: it is 1 for uncorrelated terms."""


def finished(
    factors: ThreeFactors,
    stats: Sequence[Statistics],
    kernel: Array,
    keeps_bias: bool,
    seen: Seen | None = None,
) -> ThreeFactors:
    """Give the R channels a mean square of 1 on both sides of the depthwise, and judge the block.

    Args:
        factors: The block, of any scale inside.
        stats: The moments it was fitted to; see `three_factor_fit.fit_three_factors`.
        kernel: The trained W, (kh, kw, C, N).
        keeps_bias: Whether to add the bias b̂ = E y − ŴᵀE x.
        seen: What the data make of its terms, where that is known already.

    Returns:
        The block with its largest terms first.
    """
    estimate = factors.kernel()
    seen = seen or _multiplied_out(factors, stats, estimate)
    features, before = _mean_features(factors, stats), _mean_square_before(factors, stats)
    total = sum(float(part.var_y.sum()) for part in stats)
    summed = float(seen.variance @ (factors.pointwise_out**2).sum(axis=1))
    cancellation = summed / total if total > 0 else 0.0
    bias = sum(part.mean_y for part in stats) - features @ factors.pointwise_out
    after = _one_over_root(seen.variance + features**2)
    notes = (_cancels(cancellation),) if cancellation > _CANCELLING else ()
    return replace(
        _ordered(rescaled(factors, _one_over_root(before), after)),
        bias=bias if keeps_bias else None,
        weight_error=error_between(kernel, estimate),
        data_error=float(np.sqrt(seen.missed / total)) if total > 0 else 0.0,
        cancellation=cancellation,
        notes=(*factors.notes, *notes),
    )


def _blocks(
    factors: ThreeFactors, stats: Sequence[Statistics]
) -> list[tuple[Statistics, Float, Float]]:
    """Return each block of input channels: its moments, its own p (C, R), and U (D, R)."""
    kh, kw, R = factors.depthwise.shape
    taps, found, start = factors.depthwise.reshape(kh * kw, R), [], 0
    for part in stats:
        own = factors.pointwise_in[start : start + len(part.cov) // (kh * kw)]
        found.append((part, own, (own[:, None, :] * taps).reshape(-1, R)))
        start += len(own)
    return found


def _multiplied_out(factors: ThreeFactors, stats: Sequence[Statistics], estimate: Float) -> Seen:
    variance, missed, first = np.zeros(factors.channels), 0.0, 0
    flat = by_channel(estimate, "depthwise-first").reshape(-1, estimate.shape[3])
    for part, _, features in _blocks(factors, stats):
        variance += np.einsum("dr,dr->r", features, part.cov @ features)
        own = flat[first : first + len(features)]
        missed += max(float(part.explained(own).sum()), 0.0)
        first += len(features)
    return Seen(variance, missed)


def _mean_features(factors: ThreeFactors, stats: Sequence[Statistics]) -> Float:
    """Return E u_rᵀx, (R,)."""
    mean = np.zeros(factors.channels)
    for part, _, features in _blocks(factors, stats):
        mean += part.mean_x @ features
    return mean


def _mean_square_before(factors: ThreeFactors, stats: Sequence[Statistics]) -> Float:
    """Return the mean square of each channel before the depthwise convolution, (R,)."""
    kh, kw, R = factors.depthwise.shape
    variance, mean = np.zeros(R), np.zeros((kh * kw, R))
    for part, own, _ in _blocks(factors, stats):
        variance += np.einsum("cr,cr->r", own, part.of_channels(kh * kw) @ own)
        mean += part.mean_x.reshape(len(own), kh * kw).T @ own
    return np.asarray(variance + (mean**2).mean(axis=0))


def _one_over_root(square: Float) -> Float:
    usable = square > 0
    return np.where(usable, 1 / np.sqrt(np.where(usable, square, 1.0)), 1.0)


def _ordered(factors: ThreeFactors) -> ThreeFactors:
    """Put the largest terms first."""
    order = np.argsort(-np.linalg.norm(factors.pointwise_out, axis=1), kind="stable")
    return replace(
        factors,
        pointwise_in=np.ascontiguousarray(factors.pointwise_in[:, order]),
        depthwise=np.ascontiguousarray(factors.depthwise[..., order]),
        pointwise_out=factors.pointwise_out[order],
    )


def _cancels(cancellation: float) -> str:
    return (
        f"its terms cancel each other: their variances add up to {cancellation:.0f} times "
        "the output's, which costs accuracy in 8 bits"
    )
