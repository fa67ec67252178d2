"""Functions of TensorFlow that old files recorded become layers."""

from __future__ import annotations

import numpy as np
import pytest
from keras_configs import (
    functional,
    image,
    images,
    layer,
    run,
)

from dsconvert.base.errors import InputError
from dsconvert.models.loading import load


def tf_op(function: str, *node, name: str = "op", kind: str = "TFOpLambda"):
    """A recorded TensorFlow function, whose call is not wrapped in a list."""
    return layer(kind, name, calls=[list(node)], function=function)


@pytest.mark.parametrize(
    ("node", "function", "expected"),
    [
        (["image", 0, 0, {"y": 127.5, "name": None}], "math.truediv", lambda x: x / 127.5),
        (["image", 0, 0, {"y": [1.0, 2.0, 4.0]}], "math.truediv", lambda x: x / [1.0, 2.0, 4.0]),
        (["image", 0, 0, {"y": 1.0}], "math.subtract", lambda x: x - 1),
        (["_CONSTANT_VALUE", -1, 1.0, {"y": ["image", 0, 0]}], "math.subtract", lambda x: 1 - x),
        (["image", 0, 0, {"y": 2}], "__operators__.add", lambda x: x + 2),
        (["image", 0, 0, {"y": ["image", 0, 0]}], "__operators__.add", lambda x: x + x),
        (["_CONSTANT_VALUE", -1, 3.0, {"y": ["image", 0, 0]}], "math.multiply", lambda x: 3 * x),
        (["image", 0, 0, {"y": ["image", 0, 0]}], "math.multiply", lambda x: x * x),
        (["image", 0, 0, {}], "math.negative", lambda x: -x),
        (["image", 0, 0, {"name": None}], "nn.relu", lambda x: np.maximum(x, 0)),
        (["image", 0, 0, {}], "nn.relu6", lambda x: np.clip(x, 0, 6)),
        (["image", 0, 0, {"alpha": 0.1}], "nn.leaky_relu", lambda x: np.where(x > 0, x, 0.1 * x)),
        (["image", 0, 0, {}], "math.sigmoid", lambda x: 1 / (1 + np.exp(-x))),
        (["image", 0, 0, {}], "math.tanh", np.tanh),
        (["image", 0, 0, {}], "nn.silu", lambda x: x / (1 + np.exp(-x))),
        (["image", 0, 0, {}], "nn.elu", lambda x: np.where(x > 0, x, np.expm1(x))),
        (
            ["image", 0, 0, {"axis": 1}],
            "nn.softmax",
            lambda x: np.exp(x) / np.exp(x).sum(1, keepdims=True),
        ),
        ([["image", 0, 0, {"axis": -1}]] * 2, "concat", lambda x: np.concatenate([x, x], -1)),
        (["image", 0, 0, {"axis": [1, 2]}], "math.reduce_mean", lambda x: x.mean((1, 2))),
        (
            ["image", 0, 0, {"axis": [1, 2], "keepdims": True}],
            "math.reduce_max",
            lambda x: x.max((1, 2), keepdims=True),
        ),
        (["image", 0, 0, {"shape": [-1, 36, 3]}], "reshape", lambda x: x.reshape(-1, 36, 3)),
        (
            ["image", 0, 0, {"bias": [1.0, 2.0, 3.0], "data_format": "NHWC"}],
            "nn.bias_add",
            lambda x: x + np.array([1, 2, 3]),
        ),
        (["image", 0, 0, {"dtype": "float32"}], "cast", lambda x: x),
        (["image", 0, 0, {"dtype": "int32"}], "cast", lambda x: x.astype(np.int32)),
    ],
)
def test_recorded_tensorflow_functions_become_layers(write_h5, node, function, expected):
    path = write_h5(functional([image(), tf_op(function, *node)], ["op", 0, 0]))
    loaded = load(path)
    assert loaded.repairs[0].startswith("read op as ")
    x = images(6, 6, 3)
    np.testing.assert_allclose(loaded.model(x), expected(x), rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("node", "function"),
    [
        (["image", 0, 0, {"shape": [["image", 0, 0], -1]}], "reshape"),
        (["image", 0, 0, {"central_fraction": 0.5}], "image.central_crop"),
        (["image", 0, 0, {"features": ["image", 0, 0]}], "nn.relu"),
    ],
)
def test_other_tensorflow_functions_are_refused_by_name(write_h5, node, function):
    path = write_h5(functional([image(), tf_op(function, *node, name="tf.op")], ["tf.op", 0, 0]))
    with pytest.raises(InputError, match=rf"tf\.{function} \(layer tf\.op\)"):
        load(path)


def test_recorded_slices(write_h5):
    """``x[..., ::-1]``, as ResNet's preprocess_input does."""
    spec = [{"class_name": "__ellipsis__"}, {"start": None, "stop": None, "step": -1}]
    op = tf_op("__operators__.getitem", "image", 0, 0, {"slice_spec": spec}, kind="SlicingOpLambda")
    x = images(6, 6, 3)
    np.testing.assert_array_equal(
        run(write_h5(functional([image(), op], ["op", 0, 0])), x), x[..., ::-1]
    )
