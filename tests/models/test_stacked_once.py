"""Sequential models are built once when they are read, and are the same models."""

import keras
import numpy as np
import pytest
from keras import layers

from dsconvert.models.loading import load


def stack(count):
    return [layers.Dense(3, name=f"d{index}") for index in range(count)]


def nested():
    inner = keras.Sequential([keras.Input((3,)), *stack(3)], name="inner")
    side = keras.Input((3,))
    branch = keras.Model(side, keras.Sequential(stack(2), name="last")(inner(side)), name="branch")
    return keras.Sequential([keras.Input((3,)), branch, layers.Dense(2, name="end")])


@pytest.mark.parametrize("ending", ["keras", "h5"])
@pytest.mark.parametrize("made", [lambda: keras.Sequential([keras.Input((3,)), *stack(4)]), nested])
def test_they_are_the_same_models(made, ending, tmp_path):
    model, path = made(), tmp_path / f"model.{ending}"
    model.save(path)
    x = np.random.default_rng(0).random((5, 3), np.float32)
    found = load(path).model
    assert np.array_equal(found.predict(x, verbose=0), model.predict(x, verbose=0))
    assert [one.name for one in found.layers] == [one.name for one in model.layers]


@pytest.mark.parametrize("ending", ["keras", "h5"])
def test_each_layer_is_called_a_few_times(ending, tmp_path, monkeypatch):
    count, path, called = 30, tmp_path / f"model.{ending}", []
    keras.Sequential([keras.Input((3,)), *stack(count)]).save(path)
    plain = layers.Dense.compute_output_spec
    monkeypatch.setattr(
        layers.Dense,
        "compute_output_spec",
        lambda layer, *given, **named: called.append(1) or plain(layer, *given, **named),
    )
    load(path)
    assert count <= len(called) <= 5 * count
    assert keras.Sequential.from_config.__module__.startswith("keras")
