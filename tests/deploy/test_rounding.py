"""Weights of int8 files that are not rounded to the nearest."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("keras")

import keras
from keras import layers

import dsconvert as ds
from dsconvert.base.errors import InputError
from dsconvert.converter.backends.keras.quantizable import has_kernel
from dsconvert.converter.backends.keras.read import is_depthwise
from dsconvert.deploy.exporting.keras_source import read_source
from dsconvert.deploy.exporting.rounding import RATE, RoundingSearch
from dsconvert.deploy.runtimes.registry import open_runtime
from dsconvert.models.training.refine import RefineSettings

PLAIN = {"quantize": "int8", "equalize": "off", "correct_biases": False}


def pictures(count, seed):
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(count, 3, 3, 2)).repeat(4, 1).repeat(4, 2)
    return (coarse + 0.3 * rng.normal(size=(count, 12, 12, 2))).astype(np.float32)


@pytest.fixture(scope="module")
def model():
    """One weight in each channel is far larger than the others, which get few steps by that."""
    keras.utils.set_random_seed(3)
    x = keras.Input((12, 12, 2))
    y = layers.Conv2D(8, 3, activation="relu")(x)
    y = layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False)(y)
    y = layers.BatchNormalization()(layers.Conv2D(12, 1, use_bias=False)(y))
    y = layers.GlobalAveragePooling2D()(layers.ReLU()(y))
    made = keras.Model(x, layers.Dense(6)(y))
    for layer in filter(has_kernel, made.layers):
        kernel = np.asarray(layer.kernel).copy()
        kernel[(0,) * (kernel.ndim - 1 - is_depthwise(layer))] *= 25
        layer.kernel.assign(kernel)
    return made


@pytest.fixture(scope="module")
def searched(model):
    """What the search was given, what it found, and what it told."""
    source = read_source(model, None)
    search = RoundingSearch(RefineSettings(steps=80, learning_rate=RATE))
    found, told = search(source, (pictures(60, 0),))
    return source, found, told


def kernels(model):
    return {
        layer.name: (np.asarray(layer.kernel), is_depthwise(layer))
        for layer in model._flatten_layers()
        if has_kernel(layer)
    }


def test_no_weight_leaves_the_steps_around_it_and_no_channel_its_scale(searched):
    source, found, _ = searched
    before, after = kernels(source.model), kernels(found.model)
    moved = 0
    for name, (start, deep) in before.items():
        inner = (0, 1) if deep else tuple(range(start.ndim - 1))
        largest = np.abs(start).max(axis=inner, keepdims=True)
        assert np.array_equal(np.abs(after[name][0]).max(axis=inner, keepdims=True), largest)
        steps = largest / 127
        assert np.all(np.abs(after[name][0] - start) <= steps * (1 + 1e-5))
        moved += np.count_nonzero(np.rint(start / steps) != np.rint(after[name][0] / steps))
    assert moved > 50  # of 800; and not one would be rounded otherwise without the training


def test_the_reference_stays_the_model_as_it_came(model, searched):
    source, found, _ = searched
    assert found.reference is source.reference
    for ours, theirs in zip(source.model.get_weights(), model.get_weights(), strict=True):
        assert np.array_equal(ours, theirs)


@pytest.mark.slow
def test_the_file_comes_nearer_to_the_model_on_images_nothing_was_fitted_to(tmp_path, model):
    unseen = pictures(80, 1)
    expected = model.predict(unseen, verbose=0)
    error = {}
    for name, wish in (("nearest", None), ("chosen", "80steps")):
        options = ds.ExportOptions(**PLAIN, refine_int8=wish)
        path = tmp_path / f"{name}.tflite"
        written = ds.export(model, path, options, calibration=(pictures(75, 0),))
        (given,) = open_runtime(path).predict((unseen,))
        error[name] = float(np.square(given - expected).sum())
    assert error["chosen"] < 0.9 * error["nearest"], written.notes


def test_what_gains_nothing_is_not_kept(model):
    source = read_source(model, None)
    still = RoundingSearch(RefineSettings(steps=2, learning_rate=0.0))
    found, told = still(source, (pictures(20, 0),))
    assert found is None
    assert told.endswith("not kept")


@pytest.mark.parametrize(
    ("output", "options", "calibrated", "code"),
    [
        ("m.onnx", {"quantize": "int8"}, True, "option-not-applicable"),
        ("m.tflite", {"quantize": "int16x8"}, True, "option-not-applicable"),
        ("m.tflite", {"quantize": "dynamic"}, True, "int8-only"),
        ("m.tflite", {"quantize": "int8"}, False, "needs-calibration"),
        ("m.tflite", {"quantize": "int8", "refine_int8": "long"}, True, "not-a-time"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(
    tmp_path, model, output, options, calibrated, code
):
    calibration = (pictures(20, 0),) if calibrated else None
    chosen = ds.ExportOptions(**{"refine_int8": "20steps", **options})
    with pytest.raises(InputError) as refused:
        ds.export(model, tmp_path / output, chosen, calibration=calibration)
    assert refused.value.code == code
    assert not any(tmp_path.iterdir())


def test_layers_whose_rounding_is_not_known_are_named(tmp_path):
    x = keras.Input((8, 8, 2))
    y = layers.Conv2DTranspose(4, 3)(x)
    odd = keras.Model(x, layers.Dense(3)(layers.Flatten()(y)))
    options = ds.ExportOptions(**PLAIN, refine_int8="20steps")
    with pytest.raises(InputError, match="conv2d_transpose") as refused:
        ds.export(odd, tmp_path / "m.tflite", options, calibration=(pictures(20, 0)[:, :8, :8],))
    assert refused.value.code == "not-quantizable"
