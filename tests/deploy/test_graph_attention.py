"""Sums of what each row and each column says, as graph attention takes them."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers, ops

from dsconvert.deploy.exporting.export import export


@pytest.mark.parametrize("name", ["net.tflite", "net.onnx"])
def test_of_one_sample_at_a_time(name, tmp_path):
    """Keras takes the one for a bias where there is one sample, and `predict` has several."""
    keras.utils.set_random_seed(0)
    nodes = keras.Input((6, 4))
    hidden = layers.Dense(8, activation="relu")(nodes)
    scores = layers.Dense(1)(hidden) + ops.transpose(layers.Dense(1)(hidden), (0, 2, 1))
    shares = ops.softmax(layers.LeakyReLU(negative_slope=0.2)(scores), axis=-1)
    model = keras.Model(nodes, layers.Dense(3)(ops.matmul(shares, hidden)))
    x = np.random.default_rng(0).normal(size=(8, 6, 4)).astype(np.float32)
    assert export(model, tmp_path / name, verification=x).failures == ()
