"""What a file cannot hold is named: the operation, and the layer that it stands in."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers, ops

from dsconvert.base.errors import InputError
from dsconvert.deploy.exporting.export import export
from dsconvert.deploy.exporting.layer_paths import layers_in_paths


def test_paths_lead_to_layers():
    image = keras.Input((4,), name="image")
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(4, name="deep")], name="inner")
    model = keras.Model(image, inner(image))

    assert layers_in_paths(["functional_1/inner_1/deep_1/MatMul", "other/Add"], model) == ["'deep'"]


@pytest.mark.parametrize(
    ("suffix", "function", "operation", "other"),
    [
        ("onnx", lambda x: ops.rfft(x)[0], "RFFT", "tflite"),
        ("tflite", lambda x: ops.cumprod(x, axis=1), "Cumprod", "onnx"),
        ("tflite", ops.erfinv, "Erfinv", "neither format"),
        ("onnx", ops.erfinv, "Erfinv", "neither format"),
    ],
)
def test_the_layer_of_an_unknown_operation_is_named(suffix, function, operation, other, tmp_path):
    """The other format is named only where it has it."""
    image = keras.Input((4, 4, 8), name="image")
    model = keras.Model(image, layers.Lambda(function, name="curve")(image))
    with pytest.raises(InputError) as raised:
        export(model, tmp_path / f"m.{suffix}")

    assert f"{operation}, in the layer 'curve'" in raised.value.message
    assert other in raised.value.hint


@pytest.fixture(scope="module")
def integers():
    """A model that `keras.Model.quantize` made compute with integers."""
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 2), name="image")
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(6, 3, name="seen")(image))
    model = keras.Model(image, layers.Dense(3, name="scores")(x))
    model.quantize("int8", filters="scores")
    return model


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).normal(size=(16, 8, 8, 2)).astype(np.float32)


@pytest.mark.parametrize("quantize", ["none", "int8"])
def test_tflite_refuses_them_by_name(integers, images, quantize, tmp_path):
    with pytest.raises(InputError) as raised:
        export(integers, tmp_path / "m.tflite", quantize=quantize, calibration=images)

    assert "with integers, in the layer 'scores'" in raised.value.message
    assert "float model that it was made from" in raised.value.hint
    assert ".onnx" in raised.value.hint


@pytest.mark.parametrize(
    ("mode", "format", "other"),
    [("int4", "tflite", True), ("float8", "tflite", False), ("float8", "onnx", False)],
)
def test_other_modes_are_refused_by_name_too(mode, format, other, images, tmp_path):
    """TensorFlow's converter writes a file of int4 that gives the same for every image."""
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 2), name="image")
    x = layers.Flatten()(layers.Conv2D(8, 3, name="seen")(image))
    x = layers.Dense(16, activation="relu", name="scores")(x)
    model = keras.Model(image, layers.Dense(4)(x))
    model.quantize(mode, filters="scores")
    with pytest.raises(InputError) as raised:
        export(model, tmp_path / f"m.{format}", verification=images)
    kind = "8-bit floats" if mode == "float8" else "integers"
    assert f"with {kind}, in the layer 'scores'" in raised.value.message
    assert (".onnx" in raised.value.hint) == other
    assert ".tflite" not in raised.value.hint


@pytest.mark.parametrize("quantize", ["dynamic", "int8"])
def test_onnx_does_not_quantize_them_again(integers, images, quantize, tmp_path):
    with pytest.raises(InputError) as raised:
        export(integers, tmp_path / "m.onnx", quantize=quantize, calibration=images)

    assert raised.value.code == "quantized-already"
    assert "in the layer 'scores'" in raised.value.message
    assert str(tmp_path) not in raised.value.message
    assert "--dequantize" not in raised.value.hint


def test_onnx_holds_them_as_they_are(integers, images, tmp_path):
    record = export(integers, tmp_path / "m.onnx", verification=images)
    assert not record.failures
