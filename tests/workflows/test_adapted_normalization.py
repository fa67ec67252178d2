"""A Normalization that was adapted keeps its statistics in every copy of its model."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import dsconvert as ds
from dsconvert.models.loading.fixed_size import with_fixed_sizes
from dsconvert.models.training.student_copy import copy_model

IMAGES = np.random.default_rng(0).uniform(50, 255, (24, 8, 8, 3)).astype(np.float32)


@pytest.fixture
def model():
    keras.utils.set_random_seed(1)
    norm = keras.layers.Normalization()
    norm.adapt(IMAGES)
    image = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(8, 3, padding="same", activation="relu")(norm(image))
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(8, 3)(x))
    return keras.Model(image, keras.layers.GlobalAveragePooling2D()(x))


def answers(model):
    return np.asarray(model(IMAGES, training=False))


def test_rewritten(model):
    options = ds.RewriteOptions(pairs=9)
    made = ds.rewrite(model, calibration=IMAGES, options=options, refine=0).model
    np.testing.assert_allclose(answers(made), answers(model), atol=1e-4)


def test_of_a_fixed_size(model):
    made = with_fixed_sizes(model, [(None, 8, 8, 3)])
    np.testing.assert_allclose(answers(made), answers(model), atol=1e-5)


def test_trained(model):
    np.testing.assert_allclose(answers(copy_model(model)), answers(model), atol=1e-5)


def test_exported(model, tmp_path):
    close = ds.export(model, tmp_path / "m.onnx", verification=IMAGES).fidelity[0]
    assert close.sqnr_db is None or close.sqnr_db > 80
