"""What choices between int8 files are made by, where a softmax ends a network."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from dsconvert.deploy.exporting.export import export
from dsconvert.deploy.exporting.held_out import HeldOut
from dsconvert.deploy.exporting.improve import Improvement
from dsconvert.deploy.exporting.logits import logits_of
from dsconvert.deploy.runtimes.registry import open_runtime


@pytest.fixture(scope="module", params=["tflite", "onnx"])
def files(request, digits, tmp_path_factory):
    """A trained network without its softmax, the images, and its float and int8 files."""
    keras.utils.set_random_seed(3)
    x = keras.Input((8, 8, 1), name="image")
    y = layers.Conv2D(8, 3, activation="relu", name="conv")(x)
    scores = layers.Dense(10, name="scores")(layers.Flatten()(y))
    model = keras.Model(x, layers.Softmax(name="classes")(scores))
    images, folder = digits[0][:120], tmp_path_factory.mktemp(request.param)
    paths = [folder / f"{quantize}.{request.param}" for quantize in ("none", "int8")]
    for path in paths:
        wish = Improvement(equalize="off", correct_biases=False)
        export(model, path, quantize=path.stem, calibration=images, improvement=wish)
    return keras.Model(x, scores), images, *paths


def test_they_are_the_networks(files):
    network, images, full, quantized = files
    expected = network.predict(images[:64], verbose=0)
    expected -= expected.mean(axis=1, keepdims=True)
    (exact,), (rounded,) = (logits_of(path, [images[:64]]) for path in (full, quantized))
    np.testing.assert_allclose(exact, expected, atol=1e-5 * np.abs(expected).max())
    assert 0 < np.abs(rounded - expected).max() < 0.05 * np.abs(expected).max()


def test_they_decide(files):
    _, images, full, quantized = files
    (probabilities,) = open_runtime(full).predict([images[:64]])
    held_out = HeldOut((images[:64],), (probabilities,))
    assert held_out.classifies
    assert held_out.measure == "SQNR"
    seen = held_out.with_logits(full)
    assert seen.measure == "SQNR of the logits"
    (exact,), (rounded,) = (logits_of(path, [images[:64]]) for path in (full, quantized))
    noise = np.square(rounded - exact).sum() / np.square(exact).sum()
    assert seen.score(quantized) == pytest.approx(-10 * np.log10(noise), abs=1e-4)
    assert held_out.score(quantized) == held_out.sqnr(quantized) == seen.sqnr(quantized)


@pytest.mark.parametrize("suffix", [".tflite", ".onnx"])
def test_what_is_no_classifier_has_none(suffix, tmp_path):
    x = keras.Input((8, 8, 1))
    outputs = [layers.Conv2D(2, 1, activation="softmax")(x), layers.Conv2D(3, 1)(x)]
    path = tmp_path / f"x{suffix}"
    export(keras.Model(x, outputs), path)
    assert logits_of(path, [np.ones((3, 8, 8, 1), np.float32)]) == (None, None)
    references = (np.ones((3, 1)), np.full((3, 2), 0.4), np.full((3, 2, 2), 0.5))
    assert not HeldOut((), references).classifies
