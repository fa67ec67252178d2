"""A full disk is told as one while a Keras model is saved, and nothing is left behind."""

from __future__ import annotations

import keras
import pytest
from keras import layers
from refusals import refuses

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
