"""Values between layers that have no finite products: too large, or NaN."""

from __future__ import annotations

import numpy as np

from dsconvert.base.errors import InputError
from dsconvert.base.finite import CAUSES
from dsconvert.base.predictor import Array


def refuse_overflow(products: Array, *, nan: bool = False) -> None:
    """Refuse products of weights or activations that are not finite.

    Args:
        products: The products.
        nan: Whether a factor was NaN itself: nothing overflowed then.

    Raises:
        InputError: If one is not.
    """
    if nan:
        raise InputError(
            "the model itself gives NaN between two layers on the calibration data.",
            f"{CAUSES}.",
            code="not-finite",
        )
    if not np.isfinite(products).all():
        raise InputError(
            "the values between two layers are too large: their products are not finite.",
            "Scale the images as for the trained model, e.g. --scale 1/255.",
            code="values-overflow",
        )
