"""Vectors of length 1 in int8, some of which are 0: LiteRT ended at a division by 0."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from int8_noise import int8_noise_db
from keras import layers, ops
from refusals import refuses

from dsconvert.deploy.exporting.equal_forms import equal_forms
from dsconvert.deploy.exporting.export import export
from dsconvert.deploy.exporting.improve import OFF

RNG = np.random.default_rng(0)
X = (RNG.normal(size=(40, 6, 5, 4)) - 1.0).clip(0).astype(np.float32)
X[X > 0] += 0.1
X *= RNG.uniform(0.5, 3.0, (40, 1, 1, 1)).astype(np.float32)


def norm(x, axis=-1):
    return ops.sqrt(ops.sum(ops.square(x), axis=axis, keepdims=True))


FORMS = {
    "layer": layers.UnitNormalization(),
    "layer, of columns": layers.UnitNormalization(axis=1),
    "layer, of images": layers.UnitNormalization(axis=(1, 2, 3)),
    "quotient": lambda x: x / (norm(x) + 1e-7),
    "guarded": lambda x: x / ops.maximum(norm(x), 1e-12),
    "guarded inside": lambda x: x / ops.sqrt(ops.sum(x * x, axis=-1, keepdims=True) + 1e-6),
    "guarded inside, of columns": lambda x: x / ops.sqrt(ops.sum(x * x, 1, keepdims=True) + 1e-6),
    "norm": lambda x: x / ops.maximum(ops.norm(x, axis=-1, keepdims=True), 1e-6),
    "repeated": lambda x: x / ops.tile(ops.maximum(norm(x), 1e-6), (1, 1, 1, 4)),
    "normalize": lambda x: ops.normalize(x, axis=-1),
}


def network(form):
    keras.utils.set_random_seed(0)
    image = keras.Input((6, 5, 4))
    return keras.Model(image, layers.Conv2D(5, 3)(form(layers.ReLU()(image))))


def is_the_same(model, x, **close):
    import tensorflow as tf

    expected = model.predict(x, verbose=0)
    with equal_forms(model, "tflite", "int8"):
        got = tf.function(lambda x: model(x, training=False), autograph=False)(x)
    np.testing.assert_allclose(got, expected, **close)


@pytest.mark.parametrize("kind", FORMS)
def test_in_int8(kind, tmp_path):
    assert int8_noise_db(network(FORMS[kind]), X, tmp_path / "m.tflite") < -15


@pytest.mark.parametrize("kind", FORMS)
def test_in_float_it_is_the_same(kind):
    is_the_same(network(FORMS[kind]), X, atol=1e-4)


@pytest.mark.parametrize(
    "form",
    [
        lambda x: x / (norm(x) + 0.5),
        lambda x: (x + 1.0) / (norm(x) + 1e-3),
        lambda x: x / (ops.sum(ops.square(x), axis=-1, keepdims=True) + 1.0),
        lambda x: x * ops.minimum(ops.rsqrt(ops.sum(ops.square(x), -1, keepdims=True)), 2.0),
    ],
)
def test_other_quotients_stay(form):
    is_the_same(network(form), X, rtol=1e-5, atol=1e-4)


def test_another_divisor_that_rounds_to_0_is_in_float_or_told(tmp_path):
    keras.utils.set_random_seed(0)
    image = keras.Input((6, 5, 4))
    y = layers.ReLU()(image)
    y = y / (ops.sum(y, axis=-1, keepdims=True) + 1e-6)
    model = keras.Model(image, layers.Conv2D(5, 3)(y))
    done = export(model, tmp_path / "m.tflite", quantize="int8", calibration=X)
    assert done.fidelity[0].sqnr_db > 25
    with refuses("does-not-run") as refused:  # where nothing may be left in float
        export(model, tmp_path / "n.tflite", quantize="int8", calibration=X, improvement=OFF)
    assert "divides by what int8 rounds to 0" in refused.value.hint


WORDS = RNG.normal(size=(40, 10, 8)) * np.exp(RNG.normal(size=(40, 10, 1))) + 0.2
WORDS = WORDS.astype(np.float32)
MEANS = {
    "layer": layers.LayerNormalization(),
    "layer of two axes": layers.LayerNormalization(axis=(1, 2)),
    "layer, small epsilon": layers.LayerNormalization(epsilon=1e-6, center=False),
    "root mean square": layers.RMSNormalization(),
    "spelled out": lambda x: x * ops.rsqrt(ops.mean(x * x, -1, keepdims=True) + 1e-5),
    "large epsilon": lambda x: x / ops.sqrt(ops.mean(ops.square(x), -1, keepdims=True) + 0.1),
}


def of_words(form):
    keras.utils.set_random_seed(0)
    words = keras.Input(WORDS.shape[1:])
    return keras.Model(words, layers.Dense(16)(form(layers.Dense(8)(words))))


@pytest.mark.parametrize("kind", MEANS)
def test_means_of_squares_that_run_over_powers_of_ten(kind, tmp_path):
    assert int8_noise_db(of_words(MEANS[kind]), WORDS, tmp_path / "m.tflite") < -12


@pytest.mark.parametrize("kind", MEANS)
def test_means_in_float_are_the_same(kind):
    is_the_same(of_words(MEANS[kind]), WORDS, atol=2e-3)


@pytest.mark.parametrize("kind", ["guarded inside", "spelled out"])
def test_integers_of_16_bits_are_divided_as_they_are(kind, tmp_path):
    """TFLite's norm does not take them."""
    keras.utils.set_random_seed(0)
    image = keras.Input((6, 6, 4))
    y = (FORMS | MEANS)[kind](layers.Conv2D(8, 3, padding="same")(image))
    x = RNG.normal(size=(64, 6, 6, 4)).astype(np.float32)
    model = keras.Model(image, layers.Conv2D(5, 3)(y))
    assert int8_noise_db(model, x, tmp_path / "m.tflite", "int16x8") < -25


@pytest.mark.parametrize("layer", [layers.LayerNormalization, layers.UnitNormalization])
def test_volumes(layer, tmp_path):
    volume = keras.Input((4, 4, 4, 6))
    x = RNG.normal(size=(20, 4, 4, 4, 6)).astype(np.float32)
    assert int8_noise_db(keras.Model(volume, layer()(volume)), x, tmp_path / "m.tflite") < -30
