"""A training whose model cannot be written at its end is not lost."""

from __future__ import annotations

import tempfile

import keras
import numpy as np
import pytest
from refusals import refuses

import dsconvert as ds
from dsconvert.base import files

SETTINGS = ds.FinetuneSettings(epochs=2, batch_size=8)


@pytest.fixture
def networks():
    def net():
        return keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(2, 3)])

    keras.utils.set_random_seed(0)
    return net(), net()


@pytest.fixture
def images():
    return np.random.default_rng(0).random((40, 8, 8, 1)).astype(np.float32)


@pytest.fixture
def full(tmp_path, monkeypatch):
    """The folder of the outputs, on a disk that takes no model."""
    folder, scratch = tmp_path / "output", tmp_path / "scratch"
    folder.mkdir()
    scratch.mkdir()
    room = files.take_room

    def take_room(path, size):
        if folder in path.parents:
            raise OSError(28, "No space left on device")
        room(path, size)

    monkeypatch.setattr(files, "take_room", take_room)
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    return folder


def test_its_state_stays_and_goes_on(full, networks, images, monkeypatch):
    path = full / "tuned.keras"
    start = networks[0].get_weights()
    with refuses("not-writable") as refused:
        ds.finetune(*networks, images, SETTINGS, output=path)
    state = full / "tuned.keras.state"
    assert f"The training is kept in {state}" in refused.value.words.hint
    trained = networks[0].get_weights()

    monkeypatch.undo()  # there is room now
    networks[0].set_weights(start)
    again = ds.finetune(
        *networks,
        images,
        ds.FinetuneSettings(epochs=2, batch_size=8, resume=True),
        output=path,
    )
    assert len(again.record.history) == 3
    assert not state.exists()
    for mine, theirs in zip(
        keras.saving.load_model(path, compile=False).weights, trained, strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)


def test_without_a_state_the_model_is_kept_elsewhere(full, networks, images, monkeypatch):
    def unsaved(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dsconvert.models.training.checkpoint.np.savez", unsaved)
    with refuses("not-writable") as refused:
        ds.finetune(*networks, images, SETTINGS, output=full / "tuned.keras")
    (kept,) = (full.parent / "scratch").glob("dsconvert-trained-*/model.keras")
    assert f"The trained model is kept as {kept}." in refused.value.words.hint
    weights = keras.saving.load_model(kept, compile=False).weights
    for mine, theirs in zip(weights, networks[0].get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
