"""Files of a Keras that is newer than the installed one."""

import json
import zipfile

import keras
import numpy as np
import pytest
from refusals import refuses

from dsconvert.models.loading.load import load


@pytest.fixture
def model():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            keras.layers.Conv2D(3, 3, name="conv", activation="relu"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.Reshape((16, 3), name="rows"),
            keras.layers.Bidirectional(keras.layers.LSTM(2), name="both"),
            keras.layers.Dense(2, name="out"),
        ]
    )


def written(model, path, change):
    """Save the model as a Keras would that writes more keys than the installed one."""
    model.save(path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(parts["config.json"])
    change({layer["config"]["name"]: layer["config"] for layer in config["config"]["layers"]})
    parts["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)


def test_keys_that_change_nothing_are_dropped_and_told(model, tmp_path):
    def newer(layers):
        layers["conv"]["kernel_initializer"]["config"]["input_dims"] = [0, 1]
        layers["both"]["layer"]["config"]["recurrent_initializer"]["config"]["axes"] = 3
        layers["out"]["sparsity"] = None
        layers["norm"]["moments"] = None

    path = tmp_path / "newer.keras"
    written(model, path, newer)

    loaded = load(path)

    images = np.random.default_rng(0).normal(size=(4, 6, 6, 2)).astype("float32")
    np.testing.assert_array_equal(loaded.model(images), model(images))
    (told,) = loaded.repairs
    for key in ("input_dims of", "axes of", "sparsity of Dense", "moments of BatchNormalization"):
        assert key in told


def test_a_key_that_is_used_is_not_dropped(model, tmp_path):
    path = tmp_path / "newer.keras"
    written(model, path, lambda layers: layers["conv"].update(circular=True))

    with refuses("not-rebuilt"):
        load(path)


def test_files_of_this_keras_are_left_as_they_are(model, tmp_path):
    model.save(tmp_path / "model.keras")

    assert load(tmp_path / "model.keras").repairs == ()
