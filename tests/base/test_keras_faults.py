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
