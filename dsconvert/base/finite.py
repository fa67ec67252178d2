"""NaN and infinity in samples, told by their numbers, and in what a model makes of them."""

from __future__ import annotations

from collections.abc import Sequence

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


CAUSES = "Check the data's preprocessing and the model's weights"
"""Where to look when a model gives NaN on data that hold none; to be ended."""


def check_answers(
    names: Sequence[str],
    answers: Sequence[Array],
    *,
    who: str,
    on: str,
    hint: str = f"{CAUSES}.",
    infinite: bool = True,
) -> None:
    """Refuse a model whose own answers hold NaN or infinity: nothing can be compared with them.

    Args:
        names: The outputs' names.
        answers: What the model gives, (n, ...) each, of any numeric type.
        who: What to call the model.
        on: What to call what it was given.
        hint: What to do.
        infinite: Whether infinity is refused as well; it is at least like itself.

    Raises:
        InputError: With the first such output, and on how many samples it is so.

    Example:
        >>> check_answers(["logits"], [np.zeros((3, 2))], who="the teacher", on="the images")
    """
    for name, answer in zip(names, answers, strict=True):
        wrong, what = np.isnan(answer), "NaN"
        if infinite and not wrong.any():
            wrong, what = np.isinf(answer), "infinity"
        if wrong.any():
            samples = np.atleast_1d(wrong)
            count = int(samples.reshape(len(samples), -1).any(axis=1).sum())
            raise InputError(
                f"{who} itself gives {what} on {on}: in {int(wrong.sum())} of the {wrong.size} "
                f"values of {name!r}, on {count} of {len(samples)} samples.",
                hint,
                code="not-finite",
            )
