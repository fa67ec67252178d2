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
