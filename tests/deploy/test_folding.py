"""Norms behind sums of convolutions are folded for the export, and only those."""

import keras
import numpy as np
import pytest
from keras import layers

from dsconvert.converter.rewrite import rewrite
from dsconvert.deploy.exporting.export import export
from dsconvert.deploy.exporting.folding import fold_norms

IMAGES = np.random.default_rng(0).normal(size=(3, 9, 8, 6)).astype(np.float32)


def randomized(model):
    """The model with random weights; variances stay positive."""
    rng = np.random.default_rng(1)
    for layer in model.layers:
        layer.set_weights([rng.uniform(0.2, 1.5, weight.shape) for weight in layer.get_weights()])
    return model


def summed(kind="pointwise", *, norm=None, activation=None, bias=True):
    """Two branches, their sum, a norm and a ReLU."""
    image = keras.Input((9, 8, 6), name="image")
    options = {"padding": "same", "activation": activation}

    def branch(name, use_bias):
        if kind == "depthwise":
            return layers.DepthwiseConv2D(
                3, depth_multiplier=2, use_bias=use_bias, name=name, **options
            )(image)
        return layers.Conv2D(12, 1, use_bias=use_bias, name=name, **options)(image)

    total = layers.Add(name="sum")([branch("one", False), branch("two", bias)])
    after = (norm or layers.BatchNormalization(name="norm"))(total)
    return randomized(keras.Model(image, layers.ReLU(name="relu")(after), name="net"))


def names(model):
    return [layer.name for layer in model.layers]


@pytest.mark.parametrize("kind", ["pointwise", "depthwise"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("scale", [True, False])
def test_the_function_stays_and_the_norm_goes(kind, bias, scale):
    norm = layers.BatchNormalization(scale=scale, center=scale, name="norm")
    model = summed(kind, norm=norm, bias=bias)
    before = [weight.copy() for weight in model.get_weights()]

    folded = fold_norms(model)

    assert "norm" in names(model)
    assert "norm" not in names(folded)
    assert folded.name == "net"
    np.testing.assert_allclose(folded(IMAGES), model(IMAGES, training=False), rtol=1e-5, atol=1e-5)
    for weight, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, old)


def test_a_rewritten_network_has_no_norm_left():
    image = keras.Input((9, 8, 6))
    y = layers.Conv2D(8, 3, padding="same", use_bias=False, name="conv")(image)
    y = layers.ReLU()(layers.BatchNormalization(name="norm")(y))
    small = rewrite(randomized(keras.Model(image, y)), pairs=3).model

    folded = fold_norms(small)

    assert "norm" not in names(folded)
    np.testing.assert_allclose(folded(IMAGES), small(IMAGES, training=False), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("ending", [".tflite", ".onnx"])
def test_files_are_compared_with_the_model_as_it_was(tmp_path, ending):
    artifact = export(summed(), tmp_path / f"net{ending}", calibration=IMAGES)

    assert artifact.fidelity[0].relative_error < 1e-5


def two_outputs():
    model = summed()
    return keras.Model(model.input, [model.output, model.get_layer("sum").output])


def called_twice():
    image = keras.Input((9, 8, 6))
    conv = layers.Conv2D(6, 1, name="conv")
    total = layers.Add()([conv(image), conv(layers.ReLU()(image))])
    return randomized(keras.Model(image, layers.BatchNormalization(name="norm")(total)))


@pytest.mark.parametrize(
    "make",
    [
        lambda: summed(activation="relu"),
        lambda: summed(norm=layers.BatchNormalization(axis=1, name="norm")),
        lambda: summed(norm=layers.LayerNormalization(name="norm")),
        two_outputs,
        called_twice,
    ],
    ids=["activation", "other axis", "other norm", "sum is an output", "shared convolution"],
)
def test_anything_else_stays_as_it_is(make):
    model = make()

    assert fold_norms(model) is model
