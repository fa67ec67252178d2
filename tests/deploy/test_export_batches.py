"""What the first axis of an input is: samples, a fixed batch, time, or nothing at all."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers
from refusals import refuses

from dsconvert.base.size_bounds import fixed_batch
from dsconvert.deploy.exporting.export import export


def scaled_convolution(number_first: bool) -> keras.Model:
    """Images times a number that belongs to all of them: an input without a batch."""
    keras.utils.set_random_seed(0)
    number, image = keras.Input(batch_shape=(), name="rate"), keras.Input((8, 8, 3), name="image")
    inputs = [number, image] if number_first else [image, number]
    return keras.Model(inputs, layers.Conv2D(4, 3)(image) * number)


@pytest.mark.parametrize("quantize", ["none", "int8"])
@pytest.mark.parametrize("number_first", [True, False])
def test_a_number_beside_images(tmp_path, number_first, quantize):
    done = export(
        scaled_convolution(number_first),
        tmp_path / "m.tflite",
        quantize=quantize,
        allow_random=True,
    )
    assert {info.name: info.shape for info in done.inputs} == {"rate": (), "image": (1, 8, 8, 3)}
    assert done.fidelity[0].relative_error < (1e-5 if quantize == "none" else 0.1)


@pytest.mark.parametrize("suffix", ["tflite", "onnx"])
def test_a_number_alone(tmp_path, suffix):
    number = keras.Input(batch_shape=(), name="rate")
    done = export(keras.Model(number, number * 2), tmp_path / f"m.{suffix}")
    assert done.inputs[0].shape == ()
    assert done.fidelity[0].relative_error < 1e-6


def test_a_number_has_no_batch():
    assert fixed_batch([()]) == 1
    assert fixed_batch([(), (4, 8)]) == 4
    assert fixed_batch([(None, 8), ()]) == 1


def of_time(steps: int | None) -> keras.Model:
    """A recurrent network that takes (time, samples, values), as ONNX's LSTM does."""
    keras.utils.set_random_seed(0)
    rows = keras.Input(batch_shape=(steps, 2, 3), name="rows")
    samples_first = keras.ops.transpose(rows, (1, 0, 2))
    made = layers.LSTM(4, return_sequences=True, unroll=steps is not None)(samples_first)
    return keras.Model(rows, keras.ops.transpose(made, (1, 0, 2)))


def test_time_in_the_place_of_samples_is_refused_where_it_is_free(tmp_path):
    with refuses("samples-not-independent") as refused:
        export(of_time(None), tmp_path / "m.tflite")
    assert "n×2×3 of the input rows" in refused.value.message
    assert list(tmp_path.iterdir()) == []
    assert export(of_time(None), tmp_path / "m.onnx").fidelity[0].relative_error < 1e-5


def test_a_fixed_number_of_steps_is_the_batch_of_the_file(tmp_path):
    done = export(of_time(5), tmp_path / "m.tflite")
    assert done.inputs[0].shape == (5, 2, 3)
    assert done.fidelity[0].relative_error < 1e-5


@pytest.mark.parametrize(("together", "batch"), [(False, 1), (True, 4)])
def test_a_fixed_batch_is_kept_where_its_samples_depend_on_each_other(tmp_path, together, batch):
    rows = keras.Input(batch_shape=(4, 6))
    made = layers.Dense(3)(rows)
    if together:
        made = made - keras.ops.mean(made, axis=0, keepdims=True)
    data = np.random.default_rng(0).normal(size=(8, 6)).astype(np.float32)
    done = export(keras.Model(rows, made), tmp_path / "m.tflite", verification=data)
    assert done.inputs[0].shape == (batch, 6)
    assert done.fidelity[0].relative_error < 1e-5
