"""Keras models are saved whole: a full disk is told as one, and another weight is noticed."""

from __future__ import annotations

import tempfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from full_disk import full_disk
from keras import layers, ops
from refusals import refuses

import dsconvert as ds
from dsconvert.base.errors import GateFailed
from dsconvert.workflows.model_files import open_model
from dsconvert.workflows.predictors import runnable
from dsconvert.workflows.saved_models import save_keras


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_it_is_no_fault_of_the_format(suffix, tmp_path, monkeypatch):
    for name in ("output", "temporary"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    model = keras.Sequential([keras.Input((8,)), layers.Dense(1000)])
    with full_disk(8 << 10), refuses("not-writable"):
        save_keras(model, tmp_path / "output" / f"net{suffix}", overwrite=False)
    assert [path.name for path in tmp_path.rglob("*")] == ["output", "temporary"]


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


def test_the_usual_signature_is_read_wherever_it_stands(tmp_path):
    both = tf.Module()
    shape = tf.TensorSpec([None, 4], tf.float32, name="x")
    both.twice = tf.function(lambda x: {"y": 2.0 * x}, input_signature=[shape])
    both.thrice = tf.function(lambda x: {"y": 3.0 * x}, input_signature=[shape])
    signatures = {"a_first": both.thrice, "serving_default": both.twice}
    tf.saved_model.save(both, str(tmp_path / "saved"), signatures=signatures)
    with runnable(open_model(tmp_path / "saved").model) as runtime:
        (found,) = runtime.predict([np.ones((2, 4), np.float32)])
    assert np.array_equal(found, np.full((2, 4), 2.0))


def outside_layers(function):
    """A network whose convolution and functions stand in a model inside."""
    image = keras.Input((8, 8, 4))
    x = layers.Conv2D(4, 3, name="inner")(image)
    inner = keras.Model(image, layers.Conv2D(4, 3)(function(x)))
    outer = keras.Input((8, 8, 4))
    return keras.Model(outer, layers.ReLU()(inner(outer)))


@pytest.mark.parametrize("command", ["rewrite", "finetune"])
def test_functions_that_keras_cannot_read_from_h5_are_refused_before_any_work(command, tmp_path):
    model = outside_layers(lambda x: x * 2.0)
    path, images = tmp_path / "out.h5", np.zeros((4, 8, 8, 4), np.float32)
    with refuses("not-in-h5"):
        if command == "rewrite":
            ds.rewrite(model, output=path)
        else:
            ds.finetune(model, model, images, output=path)
    assert not path.exists()


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_functions_that_keras_takes_for_layers_are_written(suffix, tmp_path):
    model = outside_layers(lambda x: ops.concatenate([x, x]))
    ds.rewrite(model, output=tmp_path / f"out{suffix}")
    assert keras.models.load_model(tmp_path / f"out{suffix}")


def test_equal_models_are_equal_files(tmp_path):
    """Keras writes the time, and where shared objects lie in memory."""
    kept = []
    for name in ("first", "second"):
        keras.utils.set_random_seed(0)
        regular = keras.regularizers.L2(1e-4)
        shared = [layers.Dense(3, kernel_regularizer=regular, name=f"d{i}") for i in range(2)]
        model = keras.Sequential([keras.Input((4,), name="x"), *shared], name="net")
        kept.append(model)
        save_keras(model, tmp_path / f"{name}.keras", overwrite=False)
    first, second = ((tmp_path / f"{name}.keras").read_bytes() for name in ("first", "second"))
    assert first == second
    assert b'"date_saved": "1980-01-01@00:00:00"' in first
