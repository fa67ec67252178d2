"""The activation that a block is timed with, as both backends see it."""

from __future__ import annotations

import keras
import numpy as np
import onnx
import pytest
from keras import layers
from onnx import helper
from onnx_nets import floats, graph, node

from dsconvert.converter.backends.backend import backend_for

CLIP = {"min": 0.0, "max": 6.0}


def keras_activation(*after, **conv) -> str:
    """Of a convolution with these layers behind it."""
    first = layers.Conv2D(4, 3, name="c", **conv)
    model = keras.Sequential([keras.Input((6, 6, 3)), first, *after])
    return backend_for(model).convolutions[0].activation


@pytest.mark.parametrize(
    ("name", "activation"),
    [("relu", "relu"), ("relu6", "relu6"), ("linear", "none"), ("sigmoid", "none")],
)
def test_inside_a_keras_layer(name, activation):
    assert keras_activation(activation=name) == activation
    assert keras_activation(layers.Activation(name)) == activation
    assert keras_activation(layers.BatchNormalization(), layers.Activation(name)) == activation


@pytest.mark.parametrize(
    ("settings", "activation"),
    [
        ({}, "relu"),
        ({"max_value": 6}, "relu6"),
        ({"max_value": 6.0}, "relu6"),
        ({"max_value": 1.0}, "none"),
        ({"negative_slope": 0.1}, "none"),
        ({"threshold": 0.5}, "none"),
    ],
)
def test_keras_relu_layers(settings, activation):
    assert keras_activation(layers.ReLU(**settings)) == activation
    assert keras_activation(layers.BatchNormalization(), layers.ReLU(**settings)) == activation


def test_keras_layers_in_between_or_beside():
    assert keras_activation(layers.MaxPooling2D(), layers.ReLU()) == "none"
    assert keras_activation(activation=layers.ReLU()) == "none"  # timed without, not refused
    # What the convolution does itself comes first, whatever follows.
    assert keras_activation(layers.ReLU(), activation="tanh") == "none"

    image = keras.Input((6, 6, 3))
    branching = layers.Conv2D(4, 3, name="c")(image)
    model = keras.Model(image, layers.Add()([layers.ReLU()(branching), branching]))
    assert backend_for(model).convolutions[0].activation == "none"
    model = keras.Model(image, [layers.ReLU()(branching), branching])
    assert backend_for(model).convolutions[0].activation == "none"


def onnx_activation(*after: onnx.NodeProto, opset=17, shape=(1, 3, 6, 6), outputs="y", **weights):
    """Of a Conv that makes "c"; the last node makes "y"."""
    nodes = [node("Conv", "x w", "c"), *after]
    model = graph(nodes, list(shape), outputs, opset=opset, w=floats(4, 3, 3, 3), **weights)
    return backend_for(model).convolutions[0].activation


def scalar(value):
    return np.array(value, np.float32)


NORM = {name: floats(4, seed=i) ** 2 + 0.5 for i, name in enumerate("gomv")}


def test_onnx_relu():
    assert onnx_activation(node("Relu", "c", "y")) == "relu"
    norm = node("BatchNormalization", "c g o m v", "n")
    assert onnx_activation(norm, node("Relu", "n", "y"), **NORM) == "relu"
    scale = [node("Mul", "c s", "p"), node("Add", "p s", "n"), node("Relu", "n", "y")]
    assert onnx_activation(*scale, s=floats(1, 4, 1, 1)) == "relu"


@pytest.mark.parametrize(
    ("bounds", "activation"),
    [((0, 6), "relu6"), ((-1, 6), "none"), ((0, 1), "none"), ((0, None), "relu")],
)
def test_onnx_clip(bounds, activation):
    low, high = bounds
    given = {"min": float(low)} | ({} if high is None else {"max": float(high)})
    as_attributes = node("Clip", "c", "y", **given)
    assert onnx_activation(as_attributes, opset=10) == activation
    held = {"low": scalar(low)} | ({} if high is None else {"high": scalar(high)})
    as_inputs = node("Clip", "c low" if high is None else "c low high", "y")
    assert onnx_activation(as_inputs, **held) == activation
    norm = node("BatchNormalization", "c g o m v", "n")
    behind = node("Clip", as_inputs.input[0].replace("c", "n") + " " + " ".join(held), "y")
    assert onnx_activation(norm, behind, **held, **NORM) == activation


def test_onnx_clip_whose_bounds_are_left_out_or_computed():
    left_out = helper.make_node("Clip", ["c", "", "high"], ["y"], "clip")
    assert onnx_activation(left_out, high=scalar(6)) == "none"
    computed = [node("ReduceMax", "x", "high", keepdims=0), node("Clip", "c low high", "y")]
    assert onnx_activation(*computed, low=scalar(0)) == "none"


def test_onnx_other_readers():
    beside = [node("Relu", "c", "r"), node("Add", "c r", "y")]
    assert onnx_activation(*beside) == "none"
    assert onnx_activation(node("Relu", "c", "y"), outputs="y c") == "none"
    assert onnx_activation(node("Sigmoid", "c", "y")) == "none"
