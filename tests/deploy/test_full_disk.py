"""A full disk is told as one by every writer of a file, also where a library words it."""

from __future__ import annotations

import tempfile

import keras
import pytest
from full_disk import full_disk
from keras import layers
from refusals import refuses

from dsconvert.deploy.exporting.export import export


@pytest.mark.parametrize("name", ["net.tflite", "net.onnx"])
def test_an_export_of_a_keras_model(name, tmp_path, monkeypatch):
    """TensorFlow says that it lacks memory, and tf2onnx that ONNX lacks an operator."""
    for folder in ("output", "temporary"):
        (tmp_path / folder).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    model = keras.Sequential([keras.Input((32,)), layers.Dense(1000)])
    with full_disk(64 << 10), refuses("not-writable") as refused:
        export(model, tmp_path / "output" / name)
    assert refused.value.message.startswith(f"cannot write {tmp_path / 'output' / name}: ")
    left = [path.name for path in tmp_path.glob("*/*")]
    assert all(name == ".ses" or name.startswith("__autograph") for name in left)  # of libraries
