"""MobileNet blocks in networks of every form: what is written does what was measured."""

from __future__ import annotations

from collections import Counter

import keras
import numpy as np
import onnx
import pytest
from keras import layers
from keras_checks import conv, first_channels, images, model_of, outputs, residual
from onnx_native import Net, kinds
from onnx_native import images as onnx_images
from onnx_native import outputs as onnx_outputs

from dsconvert.base import fidelity
from dsconvert.converter.core.types import ORDERS, Choice
from dsconvert.converter.rewrite import rewrite

DW = ORDERS[0]
MOBILENET = Choice(pairs=1, block="mobilenet")


X = images(60, 8, 8, 6)


def plain():
    return model_of(conv(8, activation="relu"), conv(4), layers.Flatten(), layers.Dense(3))


def without_bias():
    return model_of(conv(8, use_bias=False), layers.ReLU(), conv(4, use_bias=False))


def onnx_network():
    """x → a → norm → relu → b + its input → relu → pool, and one without a bias."""
    net = Net()
    net.conv("x", "a", (6, 8), pads=[1] * 4, bias=False)
    net.norm("a", "a.norm")
    net.node("Relu", "a.norm", "r")
    net.conv("r", "b", (8, 8), pads=[1] * 4)
    net.norm("b", "b.norm")
    net.node("Add", "b.norm r", "s")
    net.node("Relu", "s", "t")
    net.conv("t", "c", (8, 5), strides=[2, 1], bias=False)
    net.node("GlobalAveragePool", "c", "y")
    return net.model()


@pytest.mark.parametrize("pairs", [1, 2])
@pytest.mark.parametrize("build", [plain, without_bias, residual, first_channels, onnx_network])
def test_new_model_does_what_was_measured(build, pairs):
    """The fit computes each block in the old network's place; the new one must act exactly so."""
    keras.utils.set_random_seed(0)
    model = build()
    x, call = (
        (X, outputs) if build is not onnx_network else (onnx_images(60, 6, 9, 10), onnx_outputs)
    )
    result = rewrite(model, calibration=x, pairs=pairs, seed=5, block="mobilenet")
    unseen = x[np.random.default_rng(5).permutation(60)[-12:]]
    output_error = fidelity.output_error(call(model, unseen), call(result.model, unseen))

    assert {row.block for row in result.report.layers if row.pairs} == {"mobilenet"}
    assert len(result.report.trials) >= 2
    assert result.report.trials[0].output_error == pytest.approx(output_error, rel=1e-3)
    if build is not onnx_network:
        assert result.report.params_after == result.model.count_params()


def test_half_precision():
    net = Net(dtype=np.float16)
    net.conv("x", "a", (6, 8), pads=[1] * 4, bias=False)
    net.norm("a", "b")
    net.node("Relu", "b", "y")
    model, x = net.model(), onnx_images(60, 6, 9, 10, dtype=np.float16)
    result = rewrite(model, calibration=x, block="mobilenet")
    assert kinds(result.model)[:3] == ["Conv", "BatchNormalization", "Relu"]
    assert {t.data_type for t in result.model.graph.initializer} == {onnx.TensorProto.FLOAT16}
    (expected,), (got,) = onnx_outputs(model, x), onnx_outputs(result.model, x)
    gap = np.linalg.norm(np.asarray(expected - got, np.float64))
    # What was measured, on all images and not on the held-out fifth of them.
    error = gap / np.linalg.norm(np.asarray(expected, np.float64))
    assert error == pytest.approx(np.sqrt(result.report.trials[0].output_error), rel=0.1)


def test_a_shared_layer():
    keras.utils.set_random_seed(0)
    image, shared = keras.Input((8, 8, 6)), conv(6, activation="relu", name="shared")
    model = keras.Model(image, layers.GlobalAveragePooling2D()(shared(shared(image))))
    result = rewrite(model, calibration=X, block="mobilenet")
    (row,) = result.report.layers
    assert "a shared layer" in row.notes[-1]
    assert Counter(type(x).__name__ for x in result.model.layers)["BatchNormalization"] == 1
    linear_output_error, output_error = (
        fidelity.output_error(
            outputs(model, X), outputs(rewrite(model, calibration=X, **how).model, X)
        )
        for how in ({"order": DW}, {"block": "mobilenet"})
    )
    assert output_error < 1.3 * linear_output_error
