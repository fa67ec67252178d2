"""Files of Keras 1, and kernels that Theano wrote."""

from __future__ import annotations

import numpy as np
import pytest
from keras_configs import (
    SHAPE,
    array,
    conv,
    correlate,
    functional,
    image,
    images,
    layer,
    run,
    sequential,
)

from dsconvert.base.errors import InputError
from dsconvert.models.loading import load

# Keras' own conversion of variables to numpy.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

KERAS_1_CONV = {
    "nb_filter": 2, "nb_row": 3, "nb_col": 2, "init": "glorot_uniform", "activation": "linear",
    "border_mode": "valid", "subsample": [2, 1], "dim_ordering": "tf", "bias": True,
    "W_regularizer": {"name": "WeightRegularizer", "l1": 0.0, "l2": 0.01}, "b_regularizer": None,
    "activity_regularizer": None, "W_constraint": None, "b_constraint": None,
}  # fmt: skip


def test_kernels_written_by_theano_are_mirrored(write_h5):
    model = sequential(image(), layer("Conv2D", "c", filters=2, kernel_size=[3, 3]))
    weights = {"c": conv("c", 3, 2)}
    loaded = load(write_h5(model, weights, version="2.0.6", backend="theano"))
    assert loaded.repairs == ("mirrored 1 kernel, which Theano stores the other way",)
    kernel = loaded.model.get_layer("c").get_weights()[0]
    np.testing.assert_array_equal(kernel, weights["c"]["c/kernel:0"][::-1, ::-1])


def test_keras_1_in_full(write_h5):
    """As Keras 1.2 wrote a network: old names of layers and keys, no version, a bare list."""
    layers = [
        layer("Convolution2D", "c", batch_input_shape=SHAPE, input_dtype="float32", **KERAS_1_CONV),
        layer("BatchNormalization", "bn", mode=0, axis=-1, epsilon=0.001, momentum=0.99),
        layer("MaxPooling2D", "pool", pool_size=[2, 2], strides=[2, 2], border_mode="same",
              dim_ordering="tf"),
        layer("Dropout", "drop", p=0.5),
        layer("Flatten", "flat"),
        layer("Dense", "dense", output_dim=4, init="uniform", activation="relu", bias=True,
              W_regularizer=None, b_regularizer=None, W_constraint=None, input_dim=None),
    ]  # fmt: skip
    model = sequential(*layers)
    model["config"] = model["config"]["layers"]
    norm = {
        f"bn_{n}": np.abs(array(2, seed=i)) for i, n in enumerate(("gamma", "beta", "mean", "std"))
    }
    weights = {
        "c": {"c_W:0": array(3, 2, 3, 2), "c_b:0": array(2)},
        "bn": norm,
        "pool": {},
        "dense": {"dense_W": array(6, 4), "dense_b": array(4)},
    }
    loaded = load(write_h5(model, weights, version=None, backend=""))
    assert loaded.repairs[1] == (
        "translated 1 BatchNormalization layer, 1 Convolution2D layer, 1 Dense layer, "
        "1 Dropout layer and 1 MaxPooling2D layer from Keras 1"
    )
    x = images(6, 6, 3)
    gamma, beta, mean, variance = norm.values()
    y = correlate(x, weights["c"]["c_W:0"])[:, ::2] + weights["c"]["c_b:0"]
    y = gamma * (y - mean) / np.sqrt(variance + 0.001) + beta
    y = np.pad(y, [(0, 0), (0, 0), (0, 1), (0, 0)], constant_values=-np.inf)
    y = y.reshape(2, 1, 2, 3, 2, 2).max((2, 4)).reshape(2, -1)
    y = np.maximum(y @ weights["dense"]["dense_W"] + weights["dense"]["dense_b"], 0)
    np.testing.assert_allclose(loaded.model(x), y, atol=1e-4)
    assert float(loaded.model.get_layer("c").kernel_regularizer.l2) == pytest.approx(0.01)


def test_keras_1_kernels_that_were_laid_out_otherwise(write_h5):
    conv1d = {
        "nb_filter": 2, "filter_length": 3, "border_mode": "valid", "subsample_length": 1,
        "W_regularizer": None,
    }  # fmt: skip
    deconv = {**KERAS_1_CONV, "nb_col": 3, "subsample": [1, 1], "output_shape": [None, 8, 8, 2]}
    for item, old, new in (
        (layer("Convolution1D", "c", batch_input_shape=[None, 8, 3], **conv1d),
         array(3, 1, 3, 2), lambda k: k[:, 0]),
        (layer("Convolution1D", "c", batch_input_shape=[None, 8, 3], **conv1d),
         array(2, 3, 3, 1), lambda k: k[..., 0].transpose(2, 1, 0)),
        (layer("Deconvolution2D", "c", batch_input_shape=SHAPE, **deconv),
         array(3, 3, 3, 2), lambda k: k.transpose(0, 1, 3, 2)),
    ):  # fmt: skip
        weights = {"c": {"c_W": old, "c_b": array(2)}}
        model = load(write_h5(sequential(item), weights, version="1.2.2")).model
        np.testing.assert_array_equal(model.get_layer("c").get_weights()[0], new(old))


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("sum", lambda a, b: a + b),
        ("mul", lambda a, b: a * b),
        ("ave", lambda a, b: (a + b) / 2),
        ("max", np.maximum),
        ("concat", lambda a, b: np.concatenate([a, b], -1)),
    ],
)
def test_keras_1_merge(write_h5, mode, expected):
    relu = layer("Activation", "relu", ["image", 0, 0], activation="relu")
    merge = layer("Merge", "m", ["image", 0, 0], ["relu", 0, 0], mode=mode, mode_type="raw",
                  concat_axis=-1, dot_axes=-1, output_shape=None, arguments={})  # fmt: skip
    path = write_h5(functional([image(), relu, merge], ["m", 0, 0]), version="1.1.0")
    x = images(6, 6, 3)
    np.testing.assert_allclose(run(path, x), expected(x, np.maximum(x, 0)), atol=1e-6)


@pytest.mark.parametrize(
    ("class_name", "change", "match"),
    [
        ("Convolution2D", {"dim_ordering": "th"}, "dim_ordering='th'.*Theano"),
        ("Convolution2D", {"border_mode": "full"}, "border_mode=full"),
        ("BatchNormalization", {"mode": 1}, "mode=1"),
        ("Merge", {"mode": "cos"}, "mode=cos"),
        ("Merge", {"mode": ["4wE=", None, None]}, "mode=a function"),
    ],
)
def test_what_keras_1_alone_could_do_is_refused(write_h5, class_name, change, match):
    item = layer(class_name, "it", ["image", 0, 0], **KERAS_1_CONV | change)
    with pytest.raises(InputError, match=match):
        load(write_h5(functional([image(), item], ["it", 0, 0]), version="1.2.2"))
