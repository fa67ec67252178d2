"""Where a three-factor fit begins: factors p (C, R) and q (k², R) made from the trained kernel.

All starts are made of the kernel with each input channel in units of its standard deviation, and
take the R largest terms of a longer exact sum.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ..types import Float, as_float
from .factorize import leading_subspace

Start = tuple[Float, Float]
"""p (C, R) and q (k², R)."""


def starts(kernel: Float, channels: int, rng: np.random.Generator) -> Iterator[Start]:
    """Make starts, the one that was best most often first.

    Args:
        kernel: W by channel, (C, k², N), in units in which all input channels vary alike.
        channels: R, below the number that reproduces any kernel.
        rng: Draws the last start.
    """
    yield by_tap_pattern(kernel, channels)
    yield from_pairs(kernel, channels)
    rotation = _principal(np.einsum("can,dan->cd", kernel, kernel, optimize=True))
    first, taps = from_pairs(np.einsum("can,ci->ian", kernel, rotation, optimize=True), channels)
    yield rotation @ first, taps
    yield rng.normal(size=(len(kernel), channels)), rng.normal(size=(kernel.shape[1], channels))


def by_tap_pattern(kernel: Float, channels: int) -> Start:
    """Return the largest singular triplets of W projected on each principal pattern of the taps.

    The k² patterns are orthonormal, thus no two terms overlap and none cancel.
    """
    patterns = _principal(np.einsum("can,cbn->ab", kernel, kernel, optimize=True))
    first, taps, sizes = [], [], []
    for pattern in patterns.T:
        seen = np.einsum("can,a->cn", kernel, pattern)
        left, size, _ = np.linalg.svd(seen, full_matrices=False)
        first.append(left)
        taps.append(np.repeat(pattern[:, None], len(size), axis=1))
        sizes.append(size)
    best = _largest(np.concatenate(sizes), channels)
    return np.concatenate(first, axis=1)[:, best], np.concatenate(taps, axis=1)[:, best]


def from_pairs(kernel: Float, channels: int) -> Start:
    """Give the largest terms of the depthwise-first pairs of full rank: p has one 1 per column."""
    C, k2, N = kernel.shape
    T = min(k2, N)
    basis, energy = leading_subspace(kernel @ kernel.transpose(0, 2, 1), T)  # (C, k², T), (C, k²)
    owner, place = np.divmod(_largest(energy[:, :T].ravel(), channels), T)
    return np.eye(C)[:, owner], basis[owner, :, place].T


def _principal(gram: Float) -> Float:
    """Eigenvectors as columns, the largest first."""
    basis, _ = leading_subspace(gram[None], len(gram))
    return as_float(basis[0])


def _largest(sizes: Float, count: int) -> NDArray[np.intp]:
    return np.argsort(-sizes, kind="stable")[:count]
