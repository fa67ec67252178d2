"""Samples that stay where they are until they are asked for, as many as memory need not hold."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from dsconvert.base.predictor import Array

Index = NDArray[np.intp]
Read = Callable[[Index], Array]
"""Gives the samples of these numbers, (k, ...), as they are stored."""

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Stored:
    """An array (n, ...) on disk: indexing reads samples, and does to them what was wished.

    It stands where an array of samples may stand: it has a shape and a type, and an index or a
    slice of its first axis gives an array.

    Args:
        read: Gives samples by their numbers.
        shape: (n, ...) as stored.
        dtype: As stored.
        identity: Names what is read, for the fingerprint of a run: paths, sizes, times of change.

    Example:
        >>> import numpy as np
        >>> squares = Stored(lambda index: index[:, None] ** 2, (10, 1), np.dtype(int), "squares")
        >>> squares.select(slice(5, None)).then(lambda x: x + 1, (1,))[1:3].tolist()
        [[37], [50]]
    """

    def __init__(self, read: Read, shape: Sequence[int], dtype: np.dtype[Any], identity: str):
        self._read = read
        self._numbers: Index = np.arange(shape[0])
        self._sample = tuple(shape[1:])
        self._steps: tuple[Callable[[Array], Array], ...] = ()
        self.dtype = dtype
        self.identity = identity

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, ...), as indexing gives them."""
        return (len(self._numbers), *self._sample)

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def numbers(self) -> Index:
        """The numbers of its samples in what is stored, (n,)."""
        return self._numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: slice | Index) -> Array:
        """Read samples, (k, ...)."""
        values = self._read(self._numbers[index])
        for step in self._steps:
            values = step(values)
        return values

    def select(self, index: slice | Index) -> Stored:
        """Return these samples, unread."""
        chosen = self._like(self._sample, self.dtype, self._steps)
        chosen._numbers = self._numbers[index]
        return chosen

    def then(
        self,
        step: Callable[[Array], Array],
        sample_shape: Sequence[int],
        dtype: np.dtype[Any] | None = None,
    ) -> Stored:
        """Return the samples with one more thing done to what is read.

        Args:
            step: Takes (k, ...) and gives as many samples.
            sample_shape: The shape of one sample behind it.
            dtype: Their type behind it; by default that before.
        """
        return self._like(sample_shape, dtype or self.dtype, (*self._steps, step))

    def _like(
        self,
        sample: Sequence[int],
        dtype: np.dtype[Any],
        steps: tuple[Callable[[Array], Array], ...],
    ) -> Stored:
        other = Stored(self._read, (0, *sample), dtype, self.identity)
        other._numbers, other._steps = self._numbers, steps
        return other


def of_array(array: Array, identity: str) -> Stored:
    """Return an array, or a memory map, as samples that are prepared when they are asked for."""
    return Stored(lambda index: np.asarray(array[index]), array.shape, array.dtype, identity)


def in_threads(work: Callable[[_Item], _Result], items: Iterable[_Item]) -> list[_Result]:
    """Do work that gives the interpreter free (decoding, reading) on all cores, in order."""
    items = list(items)
    workers = min(len(items), os.cpu_count() or 1)
    if workers < 2:
        return [work(item) for item in items]
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(work, items))
