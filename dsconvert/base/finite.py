"""Samples with values that no sum bears, told by their numbers."""

from __future__ import annotations

import numpy as np

from .errors import InputError
from .predictor import Array
from .units import first_few


def check_finite(array: Array, what: str, *, first: int = 0) -> None:
    """Refuse samples that hold NaN or infinity.

    Args:
        array: The samples, (n, ...), of any numeric type.
        what: What to call them.
        first: The number of the first one.

    Raises:
        InputError: With the numbers of the first of them.

    Example:
        >>> check_finite(np.zeros((3, 2)), "the images")
    """
    finite = np.atleast_1d(np.isfinite(array))
    if finite.all():
        return
    wrong = np.flatnonzero(~finite.reshape(len(finite), -1).all(axis=1))
    numbers = first_few([str(first + number) for number in wrong])
    many = "s" if len(wrong) > 1 else ""
    raise InputError(
        f"{what}: NaN or infinity in sample{many} {numbers} of those taken; the first is 0.",
        "Clean them.",
        code="not-finite",
    )
