"""Strided 1×1 convolutions in training, whose gradient TensorFlow crashes in on a CPU."""

from __future__ import annotations

from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from dsconvert.models.training.network import PlainNetwork
from dsconvert.models.training.step import Steps
from dsconvert.models.training.strided_points import sliced_points


def gradients(model):
    """Return the graph of one training step's gradients."""
    size = SimpleNamespace(loss=lambda target, output: (target - output) ** 2)
    steps = Steps(PlainNetwork(model), [size], None, model.trainable_variables)
    ends = [[tf.TensorSpec((4, *shape[1:]))] for shape in (model.input_shape, model.output_shape)]
    return (
        tf.function(steps._gradients, autograph=False)
        .get_concrete_function(*ends, [], np.float32(0))
        .graph
    )


@pytest.mark.parametrize(("channels", "sliced"), [(8, True), (16, False)])
def test_gradient_of_few_channels_has_no_strides(channels, sliced):
    image = keras.Input((8, 8, channels))
    x = keras.layers.Conv2D(4, 1, strides=2, padding="same")(image)
    model = keras.Model(image, keras.layers.Conv2D(2, 3, strides=2, padding="same")(x))
    kinds = ("Conv2D", "Conv2DBackpropFilter")
    strides = [
        (tuple(operation.inputs[0].shape)[1:3], list(operation.get_attr("strides"))[1:3])
        for operation in gradients(model).get_operations()
        if operation.type in kinds
    ]
    assert ([2, 2] in [two for _, two in strides]) is True  # of the 3×3 kernel
    assert (((8, 8), [2, 2]) not in strides) is sliced


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(("size", "stride"), [((9, 12), 2), ((8, 7), 3), ((10,), 2)])
def test_same_values(padding, size, stride):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, *size, 5)).astype(np.float32)
    kernel = rng.normal(size=(*[1] * len(size), 5, 6)).astype(np.float32)
    plain = keras.ops.conv(x, kernel, stride, padding, "channels_last")
    with sliced_points():
        assert np.array_equal(keras.ops.conv(x, kernel, stride, padding, "channels_last"), plain)
