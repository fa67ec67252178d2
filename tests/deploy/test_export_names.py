"""Inputs and outputs keep their order and, where the format allows them, their names."""

import keras
import numpy as np
import pytest
from keras import layers

from dsconvert.deploy.exporting.export import export
from dsconvert.deploy.runtimes.registry import open_runtime


@pytest.mark.parametrize("name", ["model.tflite", "model.onnx"])
def test_inputs_keep_their_order_and_names(name, tmp_path):
    first, second = keras.Input((4,), name="z"), keras.Input((4,), name="a")
    model = keras.Model([first, second], layers.Subtract(name="difference")([first, second]))
    export(model, tmp_path / name)
    runtime = open_runtime(tmp_path / name)

    assert runtime.input_names == ("z", "a")
    ones, twos = np.ones((2, 4), np.float32), np.full((2, 4), 2, np.float32)
    np.testing.assert_array_equal(runtime.predict([twos, ones])[0], ones)


def test_name_that_tflite_cannot_keep_is_noted(tmp_path):
    image = keras.Input((4,), name="my image")
    artifact = export(keras.Model(image, layers.ReLU()(image)), tmp_path / "model.tflite")
    assert artifact.inputs[0].name == "my_image"
    assert "'my image' is called 'my_image'" in artifact.notes[0]


def test_several_outputs_of_one_layer_get_names_of_their_own(tmp_path):
    class Split(layers.Layer):
        def call(self, x):
            return x + 1, x - 1

    x = keras.Input((4,))
    model = keras.Model(x, Split(name="split")(x))
    artifact = export(model, tmp_path / "model.onnx")
    assert [info.name for info in artifact.outputs] == ["split", "split_1"]
