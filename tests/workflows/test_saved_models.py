"""Keras models are saved whole: a full disk is told as one, and another weight is noticed."""

from __future__ import annotations

import keras
import pytest
from keras import layers
from refusals import refuses

from dsconvert.base.errors import GateFailed
from dsconvert.workflows.saved_models import save_keras

resource = pytest.importorskip("resource")


@pytest.fixture
def no_room():
    """No file may have more than 8 KiB: the system says so as it says of a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8 << 10, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_it_is_no_fault_of_the_format(suffix, tmp_path, no_room):
    model = keras.Sequential([keras.Input((8,)), layers.Dense(1000)])
    with refuses("not-writable"):
        save_keras(model, tmp_path / f"net{suffix}", overwrite=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("changed", [False, True])
def test_a_file_with_another_weight_is_not_kept(changed, tmp_path, monkeypatch):
    model = keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            layers.Conv2D(3, 1),
            layers.BatchNormalization(),
            layers.Dropout(0.1),
        ]
    )
    real = keras.saving.load_model

    def load_model(*given, **options):
        again = real(*given, **options)
        if changed:
            again.layers[0].bias.assign([0.0, 0.0, 1e-9])
        return again

    monkeypatch.setattr(keras.saving, "load_model", load_model)
    if changed:
        with pytest.raises(GateFailed) as refused:
            save_keras(model, tmp_path / "net.keras", overwrite=False)
        assert refused.value.code == "not-read-back"
    else:
        save_keras(model, tmp_path / "net.keras", overwrite=False)
    assert (tmp_path / "net.keras").exists() is not changed
