"""Samples for inputs of whole numbers: what such a tensor cannot hold is refused, not cut off."""

from __future__ import annotations

import numpy as np

from .errors import InputError
from .predictor import Array

_WHOLE = tuple(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))


def check_held(array: Array, dtype: object, what: str) -> None:
    """Refuse samples that an input of whole numbers cannot hold.

    Fractions are cut off, as in images that were resized, but not where nothing would be left:
    images of 0 … 1 are all zero then.

    Args:
        array: The samples, (n, ...), all of them: a single dark image may lie within 0 … 1.
        dtype: The type of the input; of any other than whole numbers everything is held.
        what: What to call the samples.

    Raises:
        InputError: With their range and that of the type.

    Example:
        >>> check_held(np.array([0.0, 254.5]), "uint8", "the images")
    """
    kind = np.dtype(str(dtype)) if str(dtype) in _WHOLE else None
    if kind is None or not array.size or array.dtype.kind == "b":
        return
    low, high = array.min(), array.max()
    limits = np.iinfo(kind)
    within = max(abs(low), abs(high)) <= 1
    if low < limits.min or high > limits.max:
        told = f"the input is of {kind}, {limits.min} … {limits.max}"
    elif array.dtype.kind == "f" and within and not np.array_equal(array, np.rint(array)):
        told = f"the input is of {kind}, whole numbers, of which next to nothing would be left"
    else:
        return
    raise InputError(
        f"{what}: the values lie in {low:.4g} … {high:.4g}; {told}.",
        "Give the values as they are stored, 0 … 255 of an image: without --scale, --mean, --std.",
        code="values-do-not-fit",
    )
