"""Tensors that a minimum, a maximum or a choice reads beside others, in int8 .tflite files.

The converter gave them the range of what these operators give.
"""

from __future__ import annotations

import keras
import numpy as np
import pytest
from int8_noise import int8_noise_db
from keras import layers, ops

X = np.random.default_rng(0).normal(0, 3, (40, 6, 6, 8)).astype(np.float32)
FORMS = {
    "minimum": lambda x: ops.minimum(x, 0.0),
    "maximum": lambda x: ops.maximum(x, 1.0),
    "of two": lambda x: ops.minimum(x, -0.5 * x),
    "choice": lambda x: ops.where(x > 0, x, 0.0),
    "clip": lambda x: ops.clip(x, -1.0, 1.0),
    "moved": lambda x: ops.minimum(ops.transpose(x, (0, 3, 1, 2))[:, :7], 0.0),
}


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("kind", FORMS)
def test_another_reader_sees_all_of_it(kind, inside, tmp_path):
    image = keras.Input((6, 6, 8))
    x = ops.sin(image) * image if inside else image
    narrow = ops.mean(FORMS[kind](x), axis=(1, 2, 3))
    model = keras.Model(image, layers.Activation("tanh")(x * 0.3) + narrow[:, None, None, None])
    assert int8_noise_db(model, X, tmp_path / "m.tflite") < -29


def test_a_range_that_nobody_else_reads_stays_narrow(tmp_path):
    image = keras.Input((6, 6, 8))
    model = keras.Model(image, ops.clip(image, -0.1, 0.1))
    assert int8_noise_db(model, X, tmp_path / "m.tflite") < -35
