"""Equal ranges inside pairs: found, moved exactly, and left alone where it would change outputs."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from keras import layers
from onnx_graphs import run
from onnx_nets import floats, graph, node

from dsconvert.converter.backends.keras.equalize import find_pairs
from dsconvert.converter.backends.keras.graph import flatten
from dsconvert.converter.backends.onnx.equalize import find_pairs as find_onnx_pairs
from dsconvert.converter.balancing import equalized
from dsconvert.converter.core.fitting.equalization import Ranges, move
from dsconvert.formats.onnx.graph import OnnxGraph

TOLERANCE = 2e-6
"""Two more float32 roundings of 6e-8 in each of some 30 products: their norms add to far less."""


def uneven(*shape: int, axis: int, seed: int = 0) -> np.ndarray:
    """A kernel whose channels differ by factors of up to 1,000."""
    kernel = floats(*shape, seed=seed)
    sizes = [1] * kernel.ndim
    sizes[axis] = shape[axis]
    return kernel * np.logspace(-2, 1, shape[axis]).astype(np.float32).reshape(sizes)


def close(one, other) -> None:
    assert np.linalg.norm(one - other) <= TOLERANCE * np.linalg.norm(one)


@given(arrays(np.float64, (5, 4), elements=st.floats(-1e3, 1e3)))
def test_scales_make_every_range_the_same(values):
    ranges = Ranges.none(4)
    ranges.add(values[:2], axis=-1)
    ranges.add(values[2:], axis=1)
    scales = ranges.scales()
    width = np.maximum(values, 0).max(0) - np.minimum(values, 0).min(0)
    alive = width > 0
    np.testing.assert_array_equal(scales[~alive], 1.0)
    if alive.any():
        equal = (scales * width)[alive]
        np.testing.assert_allclose(equal, equal[0], rtol=1e-9)
        assert np.log(scales[alive]).mean() == pytest.approx(0, abs=1e-9)
        assert ranges.spread() == pytest.approx(width.max() / np.median(width[alive]))


def test_a_channel_that_is_not_finite_is_left_alone():
    ranges = Ranges(np.array([-1.0, 0.0]), np.array([1.0, np.inf]))
    np.testing.assert_array_equal(ranges.scales(), [1, 1])


@pytest.mark.parametrize("shapes", [((3, 3, 2, 2), (1, 1, 4, 5)), ((3, 3, 4, 1), (1, 1, 4, 5))])
def test_kernels_that_are_moved_stand_for_the_same_convolution(shapes):
    first, second = (floats(*shape, seed=i) for i, shape in enumerate(shapes))
    a, b = move(first, second, np.array([0.1, 2.0, 3.0, 40.0]), (2, 2))

    def whole(u, v):  # (kh, kw, C, m) and (1, 1, C·m, N) to (kh, kw, C·m, N)
        return u.reshape(3, 3, 4, 1) * v

    close(whole(first, second), whole(a, b))
    assert a.dtype == np.float32


def keras_pair(first: str, multiplier: int = 1, **between) -> keras.Model:
    """One pair with uneven channels inside, and layers around it."""
    image = keras.Input((9, 9, 6), name="image")
    open_ = {"use_bias": False} | between
    if first == "depthwise":
        one = layers.DepthwiseConv2D(
            3, strides=2, padding="same", depth_multiplier=multiplier, name="one", **open_
        )
        two = layers.Conv2D(7, 1, activation="relu", name="two")
        axis = 2
    else:
        one = layers.Conv2D(7, 1, name="one", **open_)
        two = layers.DepthwiseConv2D(
            3, padding="same", depth_multiplier=multiplier, activation="relu", name="two"
        )
        axis = 3
    x = two(one(image))
    model = keras.Model(image, layers.Dense(3, name="end")(layers.Flatten()(x)))
    weights = [uneven(*one.kernel.shape, axis=axis)]
    one.set_weights(weights + [floats(w.shape[0], seed=5) for w in one.weights[1:]])
    two.set_weights([floats(*two.kernel.shape, seed=1), floats(*two.bias.shape, seed=2)])
    return model


def inner_ranges(model: keras.Model, images) -> np.ndarray:
    inside = keras.Model(model.input, model.get_layer("one").output)(images)
    flat = np.asarray(inside).reshape(-1, inside.shape[-1])
    return np.maximum(flat.max(0), 0) - np.minimum(flat.min(0), 0)


@pytest.mark.parametrize("first", ["depthwise", "pointwise"])
@pytest.mark.parametrize(("multiplier", "bias"), [(1, False), (2, False), (2, True)])
def test_keras_outputs_stay_and_ranges_become_equal(first, multiplier, bias):
    keras.utils.set_random_seed(0)
    model = keras_pair(first, multiplier, use_bias=bias)
    images = floats(40, 9, 9, 6, seed=3)
    before = [np.array(w) for w in model.get_weights()]
    new, notes = equalized(model, [images])

    close(model.predict(images, verbose=0), new.predict(images, verbose=0))
    widths = inner_ranges(model, images)
    assert widths.max() > (3 if bias else 20) * widths.min()
    widths = inner_ranges(new, images)
    assert widths.max() < widths.min() * 1.0001
    assert "1 pair have equal ranges" in notes[0]
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_keras_pairs_that_share_a_layer_nested_and_in_the_other_layout():
    keras.utils.set_random_seed(1)
    inner_image = keras.Input((4, 6, 6))
    common = {"data_format": "channels_first", "use_bias": False}
    x = layers.DepthwiseConv2D(3, name="a", **common)(inner_image)
    x = layers.Conv2D(5, 1, name="b", **common)(x)
    x = layers.DepthwiseConv2D(2, name="c", **common)(x)
    inner = keras.Model(inner_image, x, name="inner")
    image = keras.Input((4, 6, 6))
    model = keras.Model(image, layers.Flatten()(inner(image)))
    inner.get_layer("a").set_weights([uneven(3, 3, 4, 1, axis=2)])
    assert [(pair.first.name, pair.second.name) for pair in find_pairs(flatten(model))] == [
        ("a", "b"),
        ("b", "c"),
    ]
    images = floats(8, 4, 6, 6, seed=3)
    new, notes = equalized(model, [images])
    close(model.predict(images, verbose=0), new.predict(images, verbose=0))
    assert "2 pairs" in notes[0]


def test_keras_pairs_with_something_in_between_are_left_alone():
    model = keras_pair("depthwise", activation="relu")
    new, notes = equalized(model, [floats(4, 9, 9, 6)])
    assert new is model
    assert notes == ()


def test_keras_values_that_others_read_are_left_alone():
    image = keras.Input((8, 8, 3))
    x = layers.DepthwiseConv2D(3, use_bias=False)(image)
    two = layers.Conv2D(4, 1)
    shared = layers.DepthwiseConv2D(3, padding="same", use_bias=False)
    y = layers.Conv2D(3, 1)(shared(shared(image)))
    model = keras.Model(image, [two(x), x, y])
    assert find_pairs(flatten(model)) == []


def onnx_pair(first: str, multiplier: int = 1, bias: bool = False, opset: int = 17, **extra):
    inner = 6 * multiplier if first == "depthwise" else 7
    if first == "depthwise":
        kernels = {
            "w1": uneven(inner, 1, 3, 3, axis=0),
            "w2": floats(7, inner, 1, 1, seed=1),
        }
        groups = (6, 1)
    else:
        kernels = {
            "w1": uneven(7, 6, 1, 1, axis=0),
            "w2": floats(7 * multiplier, 1, 3, 3, seed=1),
        }
        groups = (1, 7)
    kernels["b2"] = floats(kernels["w2"].shape[0], seed=2)
    if bias:
        kernels["b1"] = floats(inner, seed=5)
    pads = {"pads": [1, 1, 1, 1]}
    nodes = [
        node("Conv", "x w1 b1" if bias else "x w1", "z", group=groups[0], **pads),
        node("Conv", "z w2 b2", "s", group=groups[1]),
        node("Relu", "s", "y"),
    ]
    return graph(nodes, ["n", 6, 9, 9], "y", opset=opset, **kernels, **extra)


@pytest.mark.parametrize("first", ["depthwise", "pointwise"])
@pytest.mark.parametrize(("multiplier", "bias"), [(1, False), (2, False), (2, True)])
def test_onnx_outputs_stay_and_ranges_become_equal(first, multiplier, bias):
    model = onnx_pair(first, multiplier, bias)
    untouched = model.SerializeToString()
    images = floats(40, 6, 9, 9, seed=3)
    new, notes = equalized(model, [images])
    close(run(model, [images])[0], run(new, [images])[0])
    assert model.SerializeToString() == untouched
    assert "1 pair have equal ranges" in notes[0]
    assert len(new.graph.initializer) == len(model.graph.initializer)
    # Balanced already, there is nothing to gain: the widest is the median.
    assert "1.0 times" in equalized(new, [images])[1][0]
    assert "1.0 times" not in notes[0]


def test_onnx_kernels_that_others_read_are_copied():
    model = onnx_pair("depthwise")
    model.graph.node.append(node("ReduceSum", "w1", "total", keepdims=0))
    model.graph.output.append(type(model.graph.output[0])(name="total"))
    images = floats(4, 6, 9, 9, seed=3)
    new, _ = equalized(model, [images])
    assert {tensor.name for tensor in new.graph.initializer} >= {"w1", "w1_equalized"}
    for one, other in zip(run(model, [images]), run(new, [images]), strict=True):
        close(one, other)


def test_onnx_pairs_with_something_in_between_are_left_alone():
    computed = onnx_pair("depthwise", bias=True)
    computed.graph.node.insert(0, node("Identity", "b", "b1"))
    computed.graph.initializer[-1].name = "b"
    computed.graph.node.insert(0, node("ReduceMean", "x", "mean", keepdims=0))
    computed.graph.node[1].CopyFrom(node("Add", "b mean", "b1"))
    images = floats(2, 6, 9, 9)
    assert run(computed, [images])[0].shape
    assert equalized(computed, [images]) == (computed, ())
    seen = onnx_pair("depthwise")
    seen.graph.output.append(type(seen.graph.output[0])(name="z"))
    assert find_onnx_pairs(OnnxGraph(seen)) == []


def test_onnx_of_a_fixed_batch_that_the_images_do_not_fill():
    model = onnx_pair("depthwise")
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    new, _ = equalized(model, [floats(6, 6, 9, 9, seed=3)])
    images = floats(4, 6, 9, 9, seed=4)
    close(run(model, [images])[0], run(new, [images])[0])
