"""Genuine files of older Keras versions answer today as they did then, or are refused by name."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from keras_layer_kinds import samples
from refusals import refuses

from dsconvert.models.loading import load

FILES = Path(__file__).parents[1] / "data" / "keras_files"
HOLDERS = ("Bidirectional LSTM", "MultiHeadAttention", "StackedRNNCells", "TimeDistributed")
"""Layers that hold others: versions differ in how they name those."""
CHANGED = {
    "2.13.1": [*(f"{kind}.keras" for kind in HOLDERS), "activation hard_sigmoid.h5"],
    "2.15.0": ["Bidirectional LSTM.keras", "ConvLSTM2D.h5", "Discretization.h5", "GRU.h5",
               "SeparableConv2D.keras"],
    "3.0.5": ["MultiHeadAttention.keras", "RandomRotation.keras", "StackedRNNCells.keras"],
}  # fmt: skip
"""Files that today's Keras reads only after a repair; the docs' table has all kinds."""


def unpacked(version, folder, *names):
    with tarfile.open(FILES / f"keras-{version}.tar.xz") as packed:
        for name in names:
            packed.extract(name, folder, filter="data")


def check_answers(version, name, folder):
    kind = name.rpartition(".")[0]
    unpacked(version, folder, name, f"{kind}.npy")
    expected = np.load(folder / f"{kind}.npy")
    file = load(folder / name)
    found = file.model.predict(samples(kind, len(expected)), verbose=0)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    return file


@pytest.mark.parametrize(
    ("version", "name"), [(version, name) for version, names in CHANGED.items() for name in names]
)
def test_the_answers_are_the_same(version, name, tmp_path):
    check_answers(version, name, tmp_path)


@pytest.mark.parametrize("kind", ["RandomHeight", "RandomWidth", "ThresholdedReLU"])
def test_layers_that_keras_3_dropped_have_an_equal(kind, tmp_path):
    file = check_answers("2.13.1", f"{kind}.keras", tmp_path)
    assert any(kind in told for told in file.repairs)


@pytest.mark.parametrize(
    ("version", "name", "code"),
    [
        ("2.13.1", "RandomCrop.h5", "meaning-changed"),
        ("3.0.5", "RandomCrop.keras", "meaning-changed"),  # crops in inference until 3.8
        ("2.13.1", "LocallyConnected2D.h5", "needs-custom-objects"),
    ],
)
def test_what_has_no_equal_is_refused(version, name, code, tmp_path):
    unpacked(version, tmp_path, name)
    with refuses(code):
        load(tmp_path / name)


def test_what_a_refused_random_crop_advises_gives_the_old_answers(tmp_path):
    """Resizing in its place, which a user would put there."""
    unpacked("2.13.1", tmp_path, "RandomCrop.h5", "RandomCrop.npy")
    expected = np.load(tmp_path / "RandomCrop.npy")
    with h5py.File(tmp_path / "RandomCrop.h5", "r+") as file:
        config = json.loads(file.attrs["model_config"])
        (crop,) = (x for x in config["config"]["layers"] if x["class_name"] == "RandomCrop")
        crop["class_name"] = "Resizing"
        kept = {key: crop["config"][key] for key in ("name", "dtype", "height", "width")}
        crop["config"] = {**kept, "crop_to_aspect_ratio": True}
        file.attrs["model_config"] = json.dumps(config)
    found = load(tmp_path / "RandomCrop.h5").model(samples("RandomCrop", len(expected)))
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
