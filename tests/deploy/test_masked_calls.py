"""Masks that a network writes out itself leave int8 scores their steps."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from int8_noise import int8_noise_db
from keras import layers, ops

from dsconvert.deploy.exporting import tflite
from dsconvert.deploy.exporting.keras_source import read_source
from dsconvert.deploy.runtimes.registry import open_runtime

BEFORE = np.tril(np.ones((10, 10), bool))
RNG = np.random.default_rng(1)
X = RNG.normal(size=(40, 10, 8)).astype(np.float32)
X[:, :, 0] = RNG.uniform(size=(40, 10)) > 0.3  # which words there are
X[:, 0, 0] = 1


def added(low):
    return np.where(BEFORE, 0, low).astype(np.float32)


SLOPE = np.linspace(-2, 0, 100, dtype=np.float32).reshape(10, 10)
MASKS = {
    "where": lambda s, there: ops.where(BEFORE, s, -1e9),
    "where not": lambda s, there: ops.where(~BEFORE, -np.inf, s),
    "where computed": lambda s, there: ops.where(there > 0.5, s, -1e9),
    "added": lambda s, there: s + added(-1e9),
    "added with a slope": lambda s, there: s + np.where(BEFORE, SLOPE, -1e9).astype(np.float32),
    "added, a little below": lambda s, there: s + added(-100),
    "added, computed": lambda s, there: s + (1.0 - there) * -1e9,
    "added, chosen": lambda s, there: s + ops.where(there > 0.5, 0.0, -1e4),
    "added, both": lambda s, there: s + ops.minimum((1.0 - there) * -1e9, added(-1e9)),
    "added twice": lambda s, there: s + ((1.0 - there) * -1e9 + added(-1e9)),
}


def attention(mask):
    keras.utils.set_random_seed(0)
    words = keras.Input((10, 8))
    steep = keras.initializers.RandomNormal(stddev=0.8)
    query, key, value = (layers.Dense(8, kernel_initializer=steep)(words) for _ in range(3))
    scores = ops.matmul(query, ops.transpose(key, (0, 2, 1))) / 2.0
    shares = ops.softmax(mask(scores, words[:, None, :, 0]), axis=-1)
    return keras.Model(words, layers.Dense(5)(ops.matmul(shares, value)))


@pytest.mark.parametrize("kind", MASKS)
def test_in_int8(kind, tmp_path):
    """One scale for scores and a mask of -1e9 gave 0 to 8 dB, all scores being 0."""
    assert int8_noise_db(attention(MASKS[kind]), X, tmp_path / "m.tflite") < -20


def test_what_is_no_mask_stays(tmp_path):
    """Large constants that numbers are shifted or scaled by, and choices of them."""
    image = keras.Input((6, 6, 3))
    y = ops.where(image > 0.5, image, 0.25) * 2.0
    y = y + np.array([-103.9, -116.8, -123.7], np.float32)
    y = ops.minimum(y * 3.0, -5.0)
    model, path = keras.Model(image, y), tmp_path / "m.tflite"
    x = np.random.default_rng(0).random((20, 6, 6, 3)).astype(np.float32)
    expected = model.predict(x, verbose=0)
    tflite.convert(read_source(model, None), path, "int8", [x])
    (got,) = open_runtime(path).predict([x])
    assert np.abs(got - expected).max() < 4 * np.abs(expected).max() / 255


def test_plain_numbers_in_a_layer_of_tensorflow(tmp_path):
    import tensorflow as tf

    class Plain(layers.Layer):
        def call(self, x):
            return tf.where(x > 0, tf.add(tf.multiply(x, 2.0), 1.0), 0.0)

    image = keras.Input((4, 8))
    x = np.random.default_rng(0).normal(size=(20, 4, 8)).astype(np.float32)
    assert int8_noise_db(keras.Model(image, Plain()(image)), x, tmp_path / "m.tflite") < -30
