"""Models that Keras 3 saved into a folder, without an archive around its parts."""

from __future__ import annotations

import os

import keras
import numpy as np
import pytest
from refusals import refuses

from dsconvert.models.loading import load


@pytest.fixture
def model():
    keras.utils.set_random_seed(0)
    image = keras.Input((6, 6, 3))
    x = keras.layers.Conv2D(4, 3, activation="relu", name="conv")(image)
    return keras.Model(image, keras.layers.GlobalAveragePooling2D()(x))


@pytest.fixture
def folder(model, tmp_path):
    path = tmp_path / "saved"
    keras.saving.save_model(model, path, zipped=False)
    return path


def test_is_a_model_as_an_archive_is(model, folder):
    loaded = load(folder)
    images = np.random.default_rng(0).normal(size=(2, 6, 6, 3)).astype(np.float32)
    np.testing.assert_array_equal(loaded.model(images), model(images))
    assert loaded.format == "keras"
    assert not loaded.repairs
    before = loaded.sha256
    model.get_layer("conv").bias.assign(np.ones(4))
    model.save_weights(folder / "model.weights.h5")
    assert load(folder).sha256 != before


def test_a_pipe_in_it_is_not_waited_for(folder):
    os.mkfifo(folder / "more")
    with refuses("damaged-file"):
        load(folder)


@pytest.mark.parametrize("part", ["model.weights.h5", "config.json"])
def test_links_are_not_followed(part, folder, tmp_path):
    (folder / part).rename(tmp_path / "elsewhere")
    (folder / part).symlink_to(tmp_path / "elsewhere")
    with refuses("not-a-file") as caught:
        load(folder)
    assert part in caught.value.message


@pytest.mark.parametrize("part", ["model.weights.h5", "config.json"])
def test_a_damaged_part_is_told(part, folder):
    (folder / part).write_bytes((folder / part).read_bytes()[:200])
    with refuses("damaged-file"):
        load(folder)


def test_a_folder_of_other_things_is_none(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with refuses("is-a-folder"):
        load(tmp_path)
