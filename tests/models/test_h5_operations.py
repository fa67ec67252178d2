"""Functions of keras.ops in .h5 files: Keras writes such files and cannot read them."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers, ops

from dsconvert.models.loading import load

IMAGES = np.random.default_rng(0).normal(size=(2, 8, 8, 4)).astype(np.float32)
OPERATIONS = {
    "numbers": lambda x: (1.0 - x * 2.0) / 3.0 + x,  # Multiply, Subtract and Add are layers, too
    "of an activation": lambda x: x * ops.sigmoid(x),
    "of the core": lambda x: ops.cast(ops.shape(x)[1] * x, "float32"),
    "constants": lambda x: ops.conv(x, np.ones((1, 1, 4, 4), np.float32)),
    "shapes": lambda x: ops.transpose(ops.reshape(x[:, 1:], (-1, 8, 7, 4)), (0, 2, 1, 3)),
    "means": lambda x: ops.mean(x, axis=(1, 2), keepdims=True) * x,
    "concatenated": lambda x: ops.concatenate([ops.softmax(x, axis=1), x], axis=-1),
}


def network(function):
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 4))
    x = function(layers.Conv2D(4, 3, padding="same")(image))
    return keras.Model(image, layers.Conv2D(2, 1)(x))


@pytest.mark.parametrize("name", OPERATIONS)
def test_they_are_found(name, tmp_path):
    model = network(OPERATIONS[name])
    model.save(tmp_path / "net.h5")
    loaded = load(tmp_path / "net.h5")
    np.testing.assert_array_equal(loaded.model(IMAGES), model(IMAGES))
    assert any("keras.ops" in repair for repair in loaded.repairs)


def test_those_of_a_model_in_a_model_too(tmp_path):
    image = keras.Input((8, 8, 4))
    model = keras.Model(image, network(ops.relu6)(image) * 2.0)
    model.save(tmp_path / "net.h5")
    np.testing.assert_array_equal(load(tmp_path / "net.h5").model(IMAGES), model(IMAGES))


@keras.saving.register_keras_serializable("tests")
class Absolute(layers.Layer):
    """A layer that is called as an operation is."""

    def call(self, x):
        return -x


def test_layers_of_the_same_name_stay_layers(tmp_path):
    model = network(lambda x: Absolute()(layers.Multiply()([x, x])))
    model.save(tmp_path / "net.h5")
    loaded = load(tmp_path / "net.h5", custom_objects={"Absolute": Absolute})
    np.testing.assert_array_equal(loaded.model(IMAGES), model(IMAGES))
    assert not any("keras.ops" in repair for repair in loaded.repairs)
