"""Where a three-factor fit begins: factors p (C, R) and q (k², R) made from the trained kernel.

All starts are made of the kernel with its input channels in units of what they carry, and take the
R largest terms of a longer exact sum.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..types import Float, as_float
from .factorize import leading_subspace

Start = tuple[Float, Float]
"""p (C, R) and q (k², R)."""


@dataclass(frozen=True)
class Inputs:
    """Units for the input channels in which the size of a term of the kernel is what it does.

    Attributes:
        spread: The standard deviation of each, (C,).
        roots: The root of the covariance of each block of them, (C, C).
    """

    spread: Float
    roots: Sequence[Float]

    def starts(self, kernel: Float, channels: int, rng: np.random.Generator) -> Iterator[Start]:
        """Make starts, the one that was best most often first.

        Args:
            kernel: W by channel, (C, k², N).
            channels: R, below the number that reproduces any kernel.
            rng: Draws the last start.
        """
        yield self._by_tap_pattern(kernel, channels)
        column = self.spread[:, None]
        for first, taps in _of_alike(kernel * column[:, None], channels, rng):
            yield first / column, taps

    def _by_tap_pattern(self, kernel: Float, channels: int) -> Start:
        """See `by_tap_pattern`: channels that are alike count together."""
        ends = np.cumsum([len(root) for root in self.roots])[:-1]
        each = zip(self.roots, np.split(kernel, ends), strict=True)
        moved = [(root @ own.reshape(len(root), -1)).reshape(own.shape) for root, own in each]
        first, taps = by_tap_pattern(np.concatenate(moved), channels)
        parts = zip(self.roots, np.split(first, ends), strict=True)
        return np.concatenate([np.linalg.solve(root, own) for root, own in parts]), taps


def _of_alike(kernel: Float, channels: int, rng: np.random.Generator) -> Iterator[Start]:
    """Make the other starts of a kernel in units in which all input channels vary alike."""
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
        left, size = _left_singular(np.einsum("can,a->cn", kernel, pattern))
        first.append(left)
        taps.append(np.repeat(pattern[:, None], len(size), axis=1))
        sizes.append(size)
    best = _largest(np.concatenate(sizes), channels)
    return np.concatenate(first, axis=1)[:, best], np.concatenate(taps, axis=1)[:, best]


def _left_singular(matrix: Float) -> tuple[Float, Float]:
    """Return the left singular vectors (C, min(C, N)) and values, by the smaller Gram matrix."""
    C, N = matrix.shape
    basis, energy = leading_subspace((matrix @ matrix.T if C <= N else matrix.T @ matrix)[None], N)
    size = np.sqrt(energy[0])
    left = basis[0] if C <= N else matrix @ basis[0] / np.maximum(size, 1e-300)
    return left, size


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
