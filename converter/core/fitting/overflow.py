"""Values that are too large for their products."""

from __future__ import annotations

import numpy as np

from dsconvert.base.errors import InputError
from dsconvert.base.predictor import Array


def refuse_overflow(products: Array) -> None:
    """Refuse products of weights or activations that are not finite.

    Raises:
        InputError: If one is not.
    """
    if not np.isfinite(products).all():
        raise InputError(
            "the values between two layers are too large: their products are not finite.",
            "Scale the images as for the trained model, e.g. --scale 1/255.",
            code="values-overflow",
        )
