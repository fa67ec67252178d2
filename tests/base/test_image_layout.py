"""The channel axis of signals, images and volumes goes where a model takes it."""

from __future__ import annotations

import numpy as np
import pytest

from dsconvert.base.image_layout import arrange, choose, same_samples


@pytest.mark.parametrize("sizes", [(16,), (9, 10), (5, 6, 7)])
def test_what_fits_only_moved_is_moved(sizes):
    last, first = (4, *sizes, 3), (4, 3, *sizes)
    array = np.random.default_rng(0).normal(size=last)
    moved = arrange(array, choose(last, (None, *first[1:]), channels_first=False))
    np.testing.assert_array_equal(moved, np.moveaxis(array, -1, 1))
    back = arrange(moved, choose(first, (None, *last[1:]), channels_first=False))
    np.testing.assert_array_equal(back, array)
    assert same_samples((None, *last[1:]), (None, *first[1:]))


def test_what_fits_as_it_is_stays():
    assert choose((4, 8, 8), (None, 8, 8), channels_first=False) == "as stored"
    assert choose((4, 8, 9), (None, None, None), channels_first=False) == "as stored"
    assert choose((4, 8, 9), (None, 7, 8), channels_first=False) == "as stored"
