"""Keras layers that tf2onnx alone loses, or writes wrongly, are exported to ONNX."""

from __future__ import annotations

import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf
from keras_layer_kinds import network, samples

from dsconvert.deploy.exporting.export import export
from dsconvert.deploy.exporting.onnx_operators import _rounded_up
from dsconvert.deploy.runtimes.registry import open_runtime
from dsconvert.deploy.runtimes.session import first_line


@pytest.mark.parametrize(
    ("kind", "operator"),
    [
        ("Normalization", "Sub"),  # its means are constants that it computed when it was built
        ("Conv2D, groups", "Conv"),  # Keras marks it to be compiled
        ("activation gelu", "Erf"),
        ("activation celu", "Exp"),
        ("Resizing", "Resize"),  # from 12 to 20 rows
    ],
)
def test_the_file_gives_what_the_model_gives(kind, operator, tmp_path):
    export(network(keras, kind), tmp_path / "net.onnx", verification=[samples(kind)])
    nodes = {node.op_type for node in onnx.load(tmp_path / "net.onnx").graph.node}
    assert operator in nodes


@pytest.mark.parametrize(
    ("kernel", "options"),
    [
        (1, {"strides": 3}),
        (2, {"strides": (5, 2), "padding": "same"}),
        ((3, 2), {"strides": (2, 4), "output_padding": (1, 3)}),
    ],
    ids=["one", "same", "asked-for"],
)
def test_rows_that_a_transposed_kernel_leaves_out(kernel, options, tmp_path):
    image = keras.Input((5, 6, 2))
    layer = keras.layers.Conv2DTranspose(3, kernel, bias_initializer="normal", **options)
    export(keras.Model(image, layer(image)), tmp_path / "net.onnx")


@pytest.mark.parametrize(("size", "wanted"), [(12, 20), (7, 3), (224, 299), (8, 16), (3, 1)])
def test_scales_give_whole_sizes(size, wanted):
    scale = _rounded_up(np.float32(wanted / size))
    assert int(size * float(scale)) == wanted
    assert abs(float(scale) * size - wanted) < 1e-6 * wanted


def test_what_a_layer_raised_while_it_was_traced_is_told():
    @tf.function
    def traced(x):
        raise TypeError("only floats, please")

    with pytest.raises(TypeError) as raised:
        traced(tf.zeros(1))
    assert str(raised.value).startswith("in user code")
    assert first_line(raised.value) == "TypeError: only floats, please"


@pytest.mark.parametrize("suffix", ["onnx", "tflite"])
def test_an_input_may_be_an_output_as_well(suffix, tmp_path):
    image = keras.Input((6, 6, 2), name="image")
    pooled = keras.layers.GlobalAveragePooling2D(name="pooled")(image)
    export(keras.Model(image, [pooled, image]), tmp_path / f"m.{suffix}")
    runtime = open_runtime(tmp_path / f"m.{suffix}")
    x = np.random.default_rng(0).normal(size=(2, 6, 6, 2)).astype(np.float32)
    given = dict(zip(runtime.output_names, runtime.predict([x]), strict=True))

    assert runtime.output_names == ("pooled", "image_1")
    np.testing.assert_array_equal(given["image_1"], x)
