"""Weights of an old file are matched by their names."""

from __future__ import annotations

import numpy as np
import pytest
from keras_configs import (
    array,
    conv,
    functional,
    image,
    layer,
    sequential,
)

from dsconvert.base.errors import InputError
from dsconvert.models.loading import load


def test_weights_are_matched_by_name_where_order_differs(write_h5):
    layers = [image()]
    layers += [layer("Conv2D", n, "image", filters=2, kernel_size=[3, 3]) for n in ("a", "b")]
    layers += [layer("Subtract", "out", ["b", 0, 0, {}], ["a", 0, 0, {}])]
    weights = {"a": conv("a", 3, 2, seed=1), "b": conv("b", 3, 2, seed=2)}
    swapped = {"b": dict(reversed(weights["b"].items())), "a": weights["a"]}
    model = load(write_h5(functional(layers, ["out", 0, 0]), swapped)).model
    for name in weights:
        kernel, bias = model.get_layer(name).get_weights()
        np.testing.assert_array_equal(kernel, weights[name][f"{name}/kernel:0"])
        np.testing.assert_array_equal(bias, weights[name][f"{name}/bias:0"])


def test_weights_of_a_nested_depthwise_layer_are_matched_by_name(write_h5):
    """Keras 3 calls kernel what Keras 2 called depthwise_kernel."""
    shape = [None, 6, 6, 1]
    convs = [layer("DepthwiseConv2D", n, kernel_size=[3, 3], use_bias=False) for n in ("a", "b")]
    model = sequential(image(shape=shape), sequential(image(shape=shape), *convs, name="block"))
    kernels = {n: array(3, 3, 1, 1, seed=i) for i, n in enumerate(("b", "a"))}
    weights = {f"{n}/depthwise_kernel:0": kernel for n, kernel in kernels.items()}
    block = load(write_h5(model, {"block": weights})).model.get_layer("block")
    for name, kernel in kernels.items():
        np.testing.assert_array_equal(block.get_layer(name).get_weights()[0], kernel)


@pytest.mark.parametrize(
    ("weights", "match"),
    [
        ({}, "only one of the two has weights for: c"),
        ({"c": conv("c", 4, 2)}, r"c/kernel is \(3, 3, 3, 2\), in the file \(3, 3, 4, 2\)"),
        ({"c": {"c/kernel:0": array(3, 3, 3, 2)}}, "c has 2 weights, the file 1"),
    ],
)
def test_weights_of_another_model_are_refused(write_h5, weights, match):
    model = sequential(image(), layer("Conv2D", "c", filters=2, kernel_size=[3, 3]))
    with pytest.raises(InputError, match=match):
        load(write_h5(model, weights))
