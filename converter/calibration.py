"""CalibrationImages data: checked against the model, shuffled, and split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dsconvert.base.errors import InputError
from dsconvert.base.finite import check_finite
from dsconvert.base.predictor import Array, Shape
from dsconvert.base.whole_numbers import check_held

HELD_OUT = 0.2
"""The share of the images that choose between the ways of fitting."""
FEWEST_IMAGES = 10


@dataclass(frozen=True)
class CalibrationImages:
    """Images in random order; the last ``held_out`` of them are for no fit to see.

    Attributes:
        inputs: One array per model input, (n, ...).
        held_out: How many images are kept out.
    """

    inputs: tuple[Array, ...]
    held_out: int

    @property
    def fitted(self) -> int:
        """Tell how many images are fitted to."""
        return len(self.inputs[0]) - self.held_out


def split(inputs: Sequence[Array], seed: int) -> CalibrationImages:
    """Shuffle, and keep a fifth out."""
    count = len(inputs[0])
    order = np.random.default_rng(seed).permutation(count)
    return CalibrationImages(
        tuple(array[order] for array in inputs), max(1, round(count * HELD_OUT))
    )


def as_inputs(
    calibration: Array | Sequence[Array] | None,
    shapes: Sequence[Shape],
    types: Sequence[str] = (),
) -> list[Array] | None:
    """Return the data as a list with one array per input, once they fit the model.

    Args:
        calibration: Images (n, ...), or one such array per input, or None.
        shapes: Those of the model's inputs; None where a size is free.
        types: Of the model's inputs, where they are known.

    Raises:
        InputError: With the shapes, or the number of images.
    """
    if calibration is None:
        return None
    given = [calibration] if isinstance(calibration, np.ndarray) else calibration
    inputs = [np.asarray(array) for array in given]
    _check(inputs, shapes)
    for array, kind in zip(inputs, types, strict=False):
        check_held(array, kind, "the calibration data")
    return inputs


def _check(inputs: Sequence[Array], expected: Sequence[Shape]) -> None:
    got = [array.shape for array in inputs]
    fits = len(expected) == len(got) and all(
        len(want) == len(have)
        and all(w is None or w == h for w, h in zip(want[1:], have[1:], strict=True))
        for want, have in zip(expected, got, strict=True)
    )
    if not fits:
        raise InputError(
            f"the calibration data have the shape {got}, the model takes {list(expected)}.",
            "Give images of the model's size, one array per input.",
            code="shape-mismatch",
        )
    counts = [len(array) for array in inputs]
    if len(set(counts)) > 1:
        raise InputError(
            f"the calibration arrays hold different numbers of images: {counts}.",
            "Give one image per input and example, in the same order.",
            code="counts-differ",
        )
    if counts[0] < FEWEST_IMAGES:
        raise InputError(
            f"{counts[0]} calibration images are too few: at least {FEWEST_IMAGES} are "
            "needed, 500 to 1000 are good.",
            "Give more images, or use --method svd.",
            code="too-few-images",
        )
    for array in inputs:
        check_finite(array, "the calibration data")
