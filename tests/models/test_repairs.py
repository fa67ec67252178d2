"""Repairs of old model files, each on a file built as its age built it."""

from __future__ import annotations

import copy
import json
import zipfile

import keras
import numpy as np
import pytest
from keras_configs import (
    SHAPE,
    array,
    conv,
    correlate,
    functional,
    image,
    images,
    layer,
    run,
    sequential,
)
from refusals import refuses

from dsconvert.models.loading import load
from dsconvert.models.loading.repairs import REPAIRS, repair

# Keras' own conversion of variables to numpy.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def test_no_repair_changes_what_it_is_given_nor_touches_a_modern_model():
    model = keras.Sequential([keras.Input((6, 6, 3)), keras.layers.DepthwiseConv2D(3)])
    config = json.loads(model.to_json())
    before = copy.deepcopy(config)
    assert repair(config) == (before, ())
    old = functional([image(), layer("DepthwiseConv2D", "d", "image", groups=1)], ["d", 0, 0])
    before = copy.deepcopy(old)
    assert repair(old)[1] == ("dropped groups=1 from 1 DepthwiseConv2D layer",)
    assert old == before


def test_the_table_is_read_from_top_to_bottom():
    names = [step.__name__ for step in REPAIRS]
    assert names.index("keras1_vocabulary") < names.index("affine_lambdas")
    assert len(set(names)) == len(names)


def test_groups_of_one_are_dropped_from_layers_that_have_none(write_h5):
    layers = [
        image(),
        layer("DepthwiseConv2D", "dw", "image", kernel_size=[3, 3], groups=1),
        layer("Conv2DTranspose", "up", "dw", filters=2, kernel_size=[2, 2], groups=1),
    ]
    depthwise, up = array(3, 3, 3, 1), array(2, 2, 2, 3)
    weights = {
        "dw": {"dw/depthwise_kernel:0": depthwise, "dw/bias:0": array(3)},
        "up": {"up/kernel:0": up, "up/bias:0": array(2)},
    }
    loaded = load(write_h5(functional(layers, ["up", 0, 0]), weights))
    assert loaded.repairs == (
        "dropped groups=1 from 1 Conv2DTranspose layer and 1 DepthwiseConv2D layer",
    )
    np.testing.assert_array_equal(loaded.model.get_layer("dw").get_weights()[0], depthwise)
    np.testing.assert_array_equal(loaded.model.get_layer("up").get_weights()[0], up)
    assert np.isfinite(loaded.model(images(6, 6, 3))).all()


def test_groups_other_than_one_are_not_dropped(write_h5):
    layers = [image(), layer("DepthwiseConv2D", "dw", "image", kernel_size=[3, 3], groups=3)]
    with refuses("not-rebuilt"):
        load(write_h5(functional(layers, ["dw", 0, 0])))


@pytest.mark.parametrize(
    ("class_name", "config", "what"),
    [
        ("SeparableConv2D", {"filters": 2, "kernel_size": 3, "groups": 1}, "groups=1"),
        ("SeparableConv2D", {"filters": 2, "kernel_size": 3, "kernel_initializer": None}, "kernel"),
        ("RandomFlip", {"mode": "horizontal", "rng_type": "stateful"}, "rng_type=stateful"),
        ("SpatialDropout2D", {"rate": 0.1, "trainable": True, "noise_shape": None}, "noise_shape"),
    ],
)
def test_keys_that_say_nothing_are_dropped(write_h5, class_name, config, what):
    path = write_h5(sequential(image(), layer(class_name, "it", **config)), _init(class_name))
    assert what in load(path).repairs[0]


def _init(class_name: str) -> dict:
    if class_name != "SeparableConv2D":
        return {}
    names = ("depthwise_kernel", "pointwise_kernel", "bias")
    arrays = (array(3, 3, 3, 1), array(1, 1, 3, 2), array(2))
    return {"it": {f"it/{n}:0": a for n, a in zip(names, arrays, strict=True)}}


def test_time_major_is_dropped_when_false(write_h5):
    config = {"units": 2, "time_major": False}
    model = sequential(image(shape=[None, 5, 3]), layer("SimpleRNN", "rnn", **config))
    cell = "rnn/simple_rnn_cell/"
    weights = {"kernel:0": array(3, 2), "recurrent_kernel:0": array(2, 2), "bias:0": array(2)}
    path = write_h5(model, {"rnn": {cell + key: value for key, value in weights.items()}})
    assert load(path).repairs == ("dropped time_major=False from 1 SimpleRNN layer",)


def test_a_sequential_without_input_layer_gets_one_at_any_depth(write_h5):
    first = layer("Conv2D", "c", filters=2, kernel_size=[3, 3], batch_input_shape=SHAPE)
    model = sequential(sequential(first, name="inner"), layer("Flatten", "f"))
    weights = {"inner": conv("c", 3, 2)}
    loaded = load(write_h5(model, weights))
    assert loaded.repairs == ("gave an InputLayer to Sequential 'inner', Sequential 'sequential'",)
    assert loaded.model.input_shape == (None, 6, 6, 3)
    x = images(6, 6, 3)
    expected = correlate(x, weights["inner"]["c/kernel:0"]) + weights["inner"]["c/bias:0"]
    np.testing.assert_allclose(loaded.model(x), expected.reshape(2, -1), atol=2e-5)


def test_a_sequential_that_was_built_later_takes_that_shape(write_h5):
    model = sequential(layer("Conv2D", "c", filters=2, kernel_size=[3, 3]))
    model["config"]["build_input_shape"] = SHAPE
    assert load(write_h5(model, {"c": conv("c", 3, 2)})).model.input_shape == (None, 6, 6, 3)


def test_a_sequential_of_unknown_input_is_refused(write_h5):
    model = sequential(layer("Flatten", "f"))
    with refuses("model-not-built"):
        load(write_h5(model))


def test_a_sequential_as_a_bare_list(write_h5):
    first = layer("Conv2D", "c", filters=2, kernel_size=[3, 3], batch_input_shape=SHAPE)
    model = sequential(first)
    model["config"] = model["config"]["layers"]
    loaded = load(write_h5(model, {"c": conv("c", 3, 2)}, version="2.2.0"))
    assert "read 1 Sequential written as a list of layers" in loaded.repairs


def nested(kind: str) -> dict:
    """A nested model that is called twice, with calls counted from 1 as Keras 2 did."""
    inner = [
        image("inner_image"),
        layer("Conv2D", "c", "inner_image", filters=2, kernel_size=[3, 3]),
    ]
    if kind == "Sequential":
        block = {**sequential(*inner, name="block")}
    else:
        block = functional(inner, ["c", 0, 0], name="block")
    calls = [[["image", 0, 0, {}]], [["other", 0, 0, {}]]]
    other = layer("Activation", "other", "image", activation="relu")
    block |= {"name": "block", "inbound_nodes": calls}
    both = layer("Subtract", "both", ["block", 1, 0, {}], ["block", 2, 0, {}])
    return functional([image(), other, block, both], ["both", 0, 0])


@pytest.mark.parametrize("kind", ["Model", "Sequential"])
def test_calls_of_a_nested_model_are_counted_from_zero(write_h5, kind):
    weights = {"block": conv("c", 3, 2)}
    loaded = load(write_h5(nested(kind), weights))
    assert loaded.repairs == (f"counted from 0 the calls of {kind} 'block'",)
    x, kernel = images(6, 6, 3), weights["block"]["c/kernel:0"]
    expected = correlate(x, kernel) - correlate(np.maximum(x, 0), kernel)
    np.testing.assert_allclose(loaded.model(x), expected, atol=3e-5)


@pytest.mark.parametrize("kind", ["Model", "Sequential"])
def test_a_nested_model_as_the_output(write_h5, kind):
    model = nested(kind)
    model["config"]["layers"].pop()
    model["config"]["layers"][2]["inbound_nodes"].pop()
    model["config"]["output_layers"] = [["block", 1, 0]]
    weights = {"block": conv("c", 3, 2)}
    x = images(6, 6, 3)
    expected = correlate(x, weights["block"]["c/kernel:0"]) + weights["block"]["c/bias:0"]
    np.testing.assert_allclose(run(write_h5(model, weights), x), expected, atol=2e-5)


def test_a_functional_model_inside_a_sequential_gives_a_tensor(write_h5):
    inner = [
        image("inner_image"),
        layer("Conv2D", "c", "inner_image", filters=2, kernel_size=[3, 3]),
    ]
    model = sequential(image(), functional(inner, ["c", 0, 0], name="block"), layer("Flatten", "f"))
    assert run(write_h5(model, {"block": conv("c", 3, 2)}), images(6, 6, 3)).shape == (2, 32)


def test_the_archive_of_tensorflow_2_15(tmp_path):
    """The module of the functional model is gone, and the convolution had no module at all."""
    model = keras.Sequential([keras.Input((6, 6, 3)), keras.layers.Conv2D(2, 3, name="c")])
    new = tmp_path / "new.keras"
    model.save(new)
    config = functional(
        [image(), layer("Conv2D", "c", "image", filters=2, kernel_size=[3, 3])], ["c", 0, 0]
    )
    config |= {"module": "keras.src.engine.functional", "class_name": "Functional"}
    config |= {"registered_name": "Functional", "compile_config": {"loss": "my_loss"}}
    old = tmp_path / "old.keras"
    with zipfile.ZipFile(new) as source, zipfile.ZipFile(old, "w") as target:
        target.writestr("config.json", json.dumps(config))
        target.writestr("metadata.json", json.dumps({"keras_version": "2.15.0"}))
        target.writestr("model.weights.h5", source.read("model.weights.h5"))
    loaded = load(old)
    assert loaded.repairs == ("looked in keras.layers for keras.src.engine.functional",)
    x = images(6, 6, 3)
    np.testing.assert_array_equal(loaded.model(x), model(x))
    assert not loaded.model.compiled


def test_a_mixed_precision_policy_of_tf_keras(write_h5):
    policy = {"class_name": "Policy", "config": {"name": "mixed_float16"}}
    layers = [image(), layer("Conv2D", "c", "image", filters=2, kernel_size=[3, 3], dtype=policy)]
    loaded = load(write_h5(functional(layers, ["c", 0, 0]), {"c": conv("c", 3, 2)}))
    assert loaded.repairs == ("read the old dtype policy of 1 Conv2D layer",)
    assert loaded.model.get_layer("c").compute_dtype == "float16"


def test_classes_that_tensorflow_1_exported_under_other_names(write_h5):
    layers = [image(), layer("BatchNormalizationV1", "bn", "image", axis=[3], epsilon=0.001)]
    names = ("gamma", "beta", "moving_mean", "moving_variance")
    values = {f"bn/{n}:0": np.abs(array(3, seed=i)) for i, n in enumerate(names)}
    loaded = load(write_h5(functional(layers, ["bn", 0, 0]), {"bn": values}))
    assert loaded.repairs == ("read 1 BatchNormalizationV1 layer as BatchNormalization",)
    gamma, beta, mean, variance = values.values()
    x = images(6, 6, 3)
    expected = gamma * (x - mean) / np.sqrt(variance + 0.001) + beta
    np.testing.assert_allclose(loaded.model(x), expected, atol=2e-5)


def test_normalization_over_no_axis_and_over_two(write_h5):
    for axes, shape in (([], ()), ([1, 3], (6, 3))):
        layers = [image(), layer("Normalization", "n", "image", axis=axes)]
        mean, variance = array(*shape), np.abs(array(*shape, seed=1)) + 1
        values = {"n/mean:0": mean, "n/variance:0": variance, "n/count:0": np.int64(0)}
        path = write_h5(functional(layers, ["n", 0, 0]), {"n": values})
        x = images(6, 6, 3)
        where = (1, 6, 1, 3) if shape else ()
        expected = (x - mean.reshape(where)) / np.sqrt(variance.reshape(where))
        np.testing.assert_allclose(run(path, x), expected, atol=2e-5)


def test_tensors_among_keyword_arguments(write_h5):
    attention = layer(
        "MultiHeadAttention", "mha", ["image", 0, 0, {"value": ["image", 0, 0]}],
        num_heads=1, key_dim=2, query_shape=[None, 5, 3],
    )  # fmt: skip
    model = functional([image(shape=[None, 5, 3]), attention], ["mha", 0, 0])
    parts = {"query": (3, 1, 2), "key": (3, 1, 2), "value": (3, 1, 2)}
    weights = {f"mha/{n}/kernel:0": array(*s, seed=i) for i, (n, s) in enumerate(parts.items())}
    weights |= {f"mha/{n}/bias:0": array(1, 2) for n in parts}
    weights |= {
        "mha/attention_output/kernel:0": array(1, 2, 3),
        "mha/attention_output/bias:0": array(3),
    }
    loaded = load(write_h5(model, {"mha": weights}))
    assert loaded.repairs[0] == "marked the keyword tensors of 1 MultiHeadAttention layer"
    key = loaded.model.get_layer("mha").key_dense.kernel
    np.testing.assert_array_equal(key, weights["mha/key/kernel:0"])


def hard(x):
    """Keras 2's hard_sigmoid."""
    return np.clip(0.2 * np.asarray(x, np.float64) + 0.5, 0, 1)


def test_an_old_hard_sigmoid_has_its_slope_behind_a_rescaling(write_h5):
    """Called twice, and in a Sequential; one that Keras 3 wrote stays."""
    model = sequential(image(), layer("Activation", "a", activation="hard_sigmoid"))
    loaded, x = load(write_h5(model)), 9 * images(6, 6, 3)
    assert "slope" in loaded.repairs[-1]
    np.testing.assert_allclose(loaded.model(x), hard(x), atol=1e-6)
    assert load(write_h5(model, version="3.0.0")).repairs == ()
    shared = {**layer("Activation", "a", activation="hard_sigmoid"), "name": "a"}
    shared["inbound_nodes"] = [[["image", 0, 0, {}]], [["double", 0, 0, {}]]]
    double = {**layer("Rescaling", "double", scale=2.0, offset=0.0), "name": "double"}
    double["inbound_nodes"] = [[["image", 0, 0, {}]]]
    both = {**layer("Add", "both"), "name": "both"}
    both["inbound_nodes"] = [[["a", 0, 0, {}], ["a", 1, 0, {}]]]
    path = write_h5(functional([image(), double, shared, both], ["both", 0, 0]))
    np.testing.assert_allclose(load(path).model(x), hard(x) + hard(2 * x), atol=1e-6)


def test_an_old_hard_sigmoid_behind_weights_has_its_slope_in_them(write_h5):
    kernel, bias = array(3, 4), array(4)
    model = sequential(image(), layer("Dense", "d", units=4, activation="hard_sigmoid"))
    loaded = load(write_h5(model, {"d": {"d/kernel:0": kernel, "d/bias:0": bias}}))
    x = 9 * images(6, 6, 3)
    np.testing.assert_allclose(loaded.model(x), hard(x @ kernel + bias), atol=1e-5)
