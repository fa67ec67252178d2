"""A layer that gives zeros only on the calibration images: a file that runs, and a note."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from dsconvert.deploy.exporting.export import export
from dsconvert.deploy.exporting.improve import Improvement
from dsconvert.deploy.runtimes.registry import open_runtime

X = np.random.default_rng(0).random((24, 12, 12, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def dead():
    """One of two branches is zero on images of 0 … 1, and alive above."""
    keras.utils.set_random_seed(1)
    x = keras.Input((12, 12, 3), name="image")
    y = layers.Conv2D(4, 3, activation="relu", name="alive")(x)
    shifted = layers.Rescaling(1.0, -100.0, name="shift")(y)
    z = layers.Conv2D(4, 3, activation="relu", name="behind")(layers.ReLU(name="dead")(shifted))
    means = [layers.GlobalAveragePooling2D()(value) for value in (y, z)]
    return keras.Model(x, layers.Dense(4, name="scores")(layers.Concatenate()(means)))


@pytest.mark.parametrize(
    ("quantize", "wish"),
    [
        ("int8", Improvement()),
        ("int8-float-io", Improvement(equalize="off", correct_biases=False)),
        ("int8-float-io", Improvement(keep_float=1)),
    ],
)
def test_a_dead_branch_is_widened_and_named(dead, quantize, wish, tmp_path):
    path = tmp_path / "dead.tflite"
    done = export(dead, path, quantize=quantize, calibration=X, improvement=wish)
    (output,) = open_runtime(path).predict([X])
    expected = dead.predict(X, verbose=0)
    assert np.linalg.norm(output - expected) < 0.1 * np.linalg.norm(expected)
    told = [note for note in done.notes if note.startswith("zero on all calibration images")]
    assert wish.keep_float or ("dead" in told[0] and "alive" not in told[0])
