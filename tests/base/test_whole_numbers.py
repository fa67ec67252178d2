"""Inputs of whole numbers are given values that they hold."""

from __future__ import annotations

import numpy as np
import pytest
from refusals import refuses

from dsconvert.base.whole_numbers import check_held

IMAGES = np.random.default_rng(0).random((4, 8, 8, 3)).astype(np.float32)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (IMAGES, "uint8"),
        (IMAGES * 2 - 1, "int8"),
        (IMAGES * 300, "uint8"),
        (IMAGES - 200, "int8"),
        (np.array([[0, 2**31]]), "int32"),
    ],
)
def test_what_would_be_lost_is_refused(values, dtype):
    with refuses("values-do-not-fit"):
        check_held(values, dtype, "the data")


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (IMAGES, "float32"),
        (IMAGES * 255, "uint8"),  # a picture that was resized
        (np.rint(IMAGES), "uint8"),  # a mask
        (IMAGES > 0.5, "uint8"),
        (IMAGES[:0], "uint8"),
        (np.array([[1, 999]]), "int64"),
    ],
)
def test_what_is_held_passes(values, dtype):
    check_held(values, dtype, "the data")
