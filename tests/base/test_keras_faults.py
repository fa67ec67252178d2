"""What Keras cannot do by itself is done."""

from __future__ import annotations

import numpy as np
import pytest

from dsconvert.base.errors import require

keras = pytest.importorskip("keras")


@pytest.mark.parametrize("name", ["c[1]", "Faltung №1", "_c", "-", " ", "卷积", "a_b"])
def test_a_layer_of_any_name_is_traced(name):
    require("keras", "keras", "to look at it")
    image = keras.Input((4,))
    inner = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name=name)], name=f"{name}2")
    model = keras.Model(image, inner(image))
    x = np.ones((3, 4), np.float32)
    np.testing.assert_allclose(model.predict(x, verbose=0), model(x), rtol=1e-6)
    assert inner.layers[0].name == name
    assert inner.layers[0].kernel.path.endswith(f"{name}/kernel")


@pytest.mark.parametrize(
    "first", [(1, 6, 1), (2, 6, 1), (1, 6, 6), (6, 1), (1, 1, 6), (1, 6, 1, 6)]
)
@pytest.mark.parametrize("second", [(1, 1, 6), (1, 6, 1), (6,), (1, 6), (6, 1), (1, 6, 6), (1,)])
@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_a_sum_broadcasts(first, second, dtype):
    """What has one axis longer than 1 was added to the last axis or the second of the other."""
    require("keras", "keras", "to look at it")
    one = np.arange(np.prod(first), dtype=np.float32).reshape(first)
    other = np.arange(np.prod(second), dtype=dtype).reshape(second) - 3
    np.testing.assert_array_equal(keras.ops.add(one, other), one + other)
