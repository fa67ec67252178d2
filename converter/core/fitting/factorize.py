"""Pairs from the weights alone.

A kernel is looked at as one matrix per depthwise channel g: depthwise first, g runs over the C
inputs and the matrix is W[:, :, g, :] as (k², N); pointwise first, over the N outputs and it is
W[:, :, :, g] as (k², C). T pairs are a rank-T approximation of each, of which the truncated SVD
is the best (Eckart-Young; Network Decoupling, Guo et al., arXiv:1808.05517).

The singular vectors come from the eigenvectors of the small k² × k² Gram matrices: an order of
magnitude faster than an SVD of the wide ones, and exact at full rank, since the projection on a
complete orthonormal basis is the identity.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dsconvert.base.predictor import Array

from ..types import Float, Order, as_float, error_between
from .overflow import refuse_overflow
from .pairs import Pairs
from .threads import single_threaded


def by_channel(kernel: Array, order: Order) -> Float:
    """W (kh, kw, C, N) as one matrix per depthwise channel: (G, k², M)."""
    kh, kw, C, N = kernel.shape
    flat = as_float(kernel).reshape(kh * kw, C, N)
    return flat.transpose(1, 0, 2) if order == "depthwise-first" else flat.transpose(2, 0, 1)


def pack(
    order: Order,
    taps: Float,
    mixers: Float,
    kernel: Array,
    bias: Array | None,
    weight_error: float | None = None,
) -> Pairs:
    """Factors by channel, taps (T, G, k²) and mixers (T, G, M), as `Pairs`.

    The weight error is computed unless it is known.
    """
    kh, kw = kernel.shape[:2]
    T, G, _ = taps.shape
    pointwise = mixers if order == "depthwise-first" else mixers.transpose(0, 2, 1)
    depthwise = np.ascontiguousarray(taps.transpose(0, 2, 1)).reshape(T, kh, kw, G)
    factors = Pairs(
        order=order,
        depthwise=depthwise,
        pointwise=np.ascontiguousarray(pointwise),
        bias=None if bias is None else as_float(bias),
        weight_error=0.0 if weight_error is None else weight_error,
    )
    if weight_error is not None:
        return factors
    return replace(factors, weight_error=error_between(kernel, factors.kernel()))


def leading_subspace(gram: Float, rank: int) -> tuple[Float, Float]:
    """Return the ``rank`` leading eigenvectors of each matrix (G, k, k), and all eigenvalues.

    Returns:
        (G, k, rank) orthonormal columns, largest first, and (G, k) eigenvalues, largest first.

    Raises:
        InputError: If the products of weights or of what the images make of them have overflowed.
    """
    refuse_overflow(gram)
    values, vectors = np.linalg.eigh(gram)
    return vectors[:, :, ::-1][:, :, :rank], np.maximum(values[:, ::-1], 0.0)


@single_threaded
def from_weights(kernel: Array, bias: Array | None, order: Order, pairs: int) -> Pairs:
    """Return the best ``pairs`` pairs for a kernel, judged by the weights.

    Args:
        kernel: W, (kh, kw, C, N).
        bias: (N,) or None.
        order: Which operation comes first.
        pairs: T, at least 1; no more than the full rank are made.
    """
    matrices = by_channel(kernel, order)
    rank = min(pairs, *matrices.shape[1:])
    gram = matrices @ matrices.transpose(0, 2, 1)
    basis, energy = leading_subspace(gram, rank)  # (G, k², T), (G, k²)
    mixers = basis.transpose(0, 2, 1) @ matrices  # (G, T, M)
    # What is left out of an orthonormal basis: no need to multiply the factors out.
    total = max(float(energy.sum()), np.finfo(np.float64).tiny)
    error = float(np.sqrt(energy[:, rank : matrices.shape[2]].sum() / total))
    return pack(order, basis.transpose(2, 0, 1), mixers.transpose(1, 0, 2), kernel, bias, error)


@single_threaded
def weight_errors(kernel: Array, order: Order) -> Float:
    """Relative weight error for T = 1, 2, …, full rank: sqrt(tail σ² / total σ²)."""
    matrices = by_channel(kernel, order)
    _, energy = leading_subspace(matrices @ matrices.transpose(0, 2, 1), 1)
    total = energy.sum()
    if total == 0:
        return np.zeros(min(matrices.shape[1:]))
    tail = np.maximum(total - np.cumsum(energy.sum(axis=0)), 0.0)
    return as_float(np.sqrt(tail / total))[: min(matrices.shape[1:])]


def random_pairs(
    kernel: Array, bias: Array | None, order: Order, pairs: int, rng: np.random.Generator
) -> Pairs:
    """Fresh pairs, as Keras initialises them: the tutorials' baseline, to compare with.

    Glorot uniform with Keras' fans (a depthwise kernel is (kh, kw, G, 1)) and a zero bias.
    """
    kh, kw, C, N = kernel.shape
    G, M = (C, N) if order == "depthwise-first" else (N, C)
    taps_limit = np.sqrt(6.0 / (kh * kw * G + kh * kw))
    mixers_limit = np.sqrt(6.0 / (C + N))
    taps = rng.uniform(-taps_limit, taps_limit, (pairs, G, kh * kw))
    mixers = rng.uniform(-mixers_limit, mixers_limit, (pairs, G, M))
    return pack(order, taps, mixers, kernel, None if bias is None else np.zeros(N))
