"""Rewritten Keras models have the same graph, inputs, outputs and names as the given ones.

With as many pairs as the full rank the outputs are the same too.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops
from keras_checks import FULL_RANK, assert_same_outputs, images, layers_of
from refusals import refuses

from dsconvert.base.errors import InputError
from dsconvert.converter.core.types import ORDERS, Choice, LayerPlan, Plan
from dsconvert.converter.rewrite import rewrite

X = images(3, 8, 8, 6)


def conv(filters=6, name=None, **more):
    return layers.Conv2D(filters, 3, padding="same", bias_initializer="normal", name=name, **more)


def block(name, filters=6):
    """A nested model whose convolution is called "conv", as in its siblings."""
    image = keras.Input((8, 8, 6))
    return keras.Model(image, layers.ReLU()(conv(filters, "conv")(image)), name=name)


def exactly(model, x=X, **options):
    """The full-rank rewrite, checked to compute the same."""
    result = rewrite(model, pairs=FULL_RANK, **options)
    assert_same_outputs(model, result.model, x)
    return result


class TestGraphs:
    def test_sequential_becomes_functional(self):
        model = keras.Sequential(
            [keras.Input((8, 8, 6), name="image"), conv(name="a"), layers.ReLU(), conv(name="b")],
            name="net",
        )
        result = exactly(model)

        assert type(result.model) is keras.src.models.Functional
        assert result.model.name == "net"
        assert [tensor.name for tensor in result.model.inputs] == ["image"]
        assert result.model.output_names == ["b"]
        assert result.report.rewritten == ("a", "b")
        assert result.model.input_shape == model.input_shape

    def test_sequential_built_by_calling_it(self):
        model = keras.Sequential([conv(), layers.Flatten(), layers.Dense(2)])
        model(X)

        assert len(exactly(model).report.rewritten) == 1

    def test_operations_and_branches(self):
        image = keras.Input((8, 8, 6))
        x = ops.relu(conv()(image)) * 2 + 1
        x = layers.Concatenate()([x, conv(4)(x)[..., 1:]])
        exactly(keras.Model(image, ops.mean(x, axis=(1, 2))))

    def test_nested_models_keep_their_place(self):
        inner = block("inner")
        image = keras.Input((8, 8, 6))
        middle = keras.Model(image, conv(name="own")(inner(image)), name="middle")
        image = keras.Input((8, 8, 6))
        tail = keras.Sequential([keras.Input((8, 8, 6)), conv(name="conv")], name="tail")
        model = keras.Model(image, tail(block("other")(middle(image))))
        result = exactly(model)

        # A name that stands for one layer is enough; otherwise the path tells them apart.
        assert result.report.rewritten == ("middle/inner/conv", "own", "other/conv", "tail/conv")
        assert [layer.name for layer in result.model.layers[1:]] == ["middle", "other", "tail"]
        assert result.model.get_layer("middle").get_layer("inner").get_layer("conv_dw1")

    def test_one_of_several_namesakes(self):
        image = keras.Input((8, 8, 6))
        model = keras.Model(image, block("second")(block("first")(image)))

        assert exactly(model, include=["second/*"]).report.rewritten == ("second/conv",)

    def test_nested_model_called_twice_is_rewritten_once(self):
        shared = block("shared")
        left, right = keras.Input((8, 8, 6)), keras.Input((8, 8, 6))
        model = keras.Model([left, right], [shared(left), shared(shared(right))])
        result = exactly(model, [X, X + 1])

        assert result.report.rewritten == ("conv",)
        assert result.report.layers[0].macs_before == 3 * 9 * 6 * 6 * 64
        assert len(result.model.get_layer("shared")._inbound_nodes) == 3

    def test_shared_layer_is_rewritten_once(self):
        shared = conv(name="shared")
        image = keras.Input((8, 8, 6))
        x = layers.MaxPooling2D()(shared(image))
        model = keras.Model(image, layers.GlobalMaxPooling2D()(shared(x)))
        result = exactly(model)

        assert result.report.rewritten == ("shared",)
        assert result.report.layers[0].macs_before == 9 * 6 * 6 * (64 + 16)
        kinds = [type(layer).__name__ for layer in layers_of(result.model)]
        assert kinds.count("DepthwiseConv2D") == 6

    def test_subclassed_model_is_drawn(self):
        class Net(keras.Model):
            def __init__(self):
                super().__init__(name="net")
                self.conv = conv(name="conv")
                self.inner = block("inner")
                self.dense = layers.Dense(3)

            def call(self, x, training=None):
                return self.dense(ops.mean(ops.relu(self.inner(self.conv(x))), axis=(1, 2)))

        model = Net()
        model(X)
        result = exactly(model)

        assert type(result.model) is keras.src.models.Functional
        assert result.model.name == "net"
        assert result.report.rewritten == ("conv", "inner/conv")

    def test_functional_subclass_becomes_plain(self):
        class Trainer(keras.Model):
            def train_step(self, data):
                raise NotImplementedError

        image = keras.Input((8, 8, 6))

        assert type(exactly(Trainer(image, conv()(image))).model) is keras.src.models.Functional

    def test_model_without_convolutions_is_copied(self):
        image = keras.Input((8, 8, 6))
        model = keras.Model(image, layers.Dense(2)(image))
        result = exactly(model)

        assert result.model is not model
        assert result.report.layers == ()


class TestInputsAndOutputs:
    def test_lists_keep_their_order(self):
        left, right = keras.Input((8, 8, 6), name="left"), keras.Input((8, 8, 6), name="right")
        a, b = conv(name="a")(left), conv(4, name="b")(right)
        total = layers.GlobalMaxPooling2D(name="total")(layers.Concatenate()([a, b]))
        model = keras.Model([right, left], [total, b, a])
        result = exactly(model, [X, X + 1])

        assert [tensor.name for tensor in result.model.inputs] == ["right", "left"]
        assert result.model.output_names == model.output_names == ["total", "b", "a"]

    def test_lists_of_one_take_and_give_a_tensor(self):
        image = keras.Input((8, 8, 6))
        model = keras.Model([image], [conv()(image)])
        made = rewrite(model, pairs=FULL_RANK).model

        # Given a bare tensor, Keras would warn of a model that wants a list.
        np.testing.assert_allclose(made(X), model([X]), atol=1e-5)

    def test_dictionaries_keep_their_keys(self):
        left, right = keras.Input((8, 8, 6), name="left"), keras.Input((8, 8, 6), name="right")
        model = keras.Model(
            {"right": right, "left": left},
            {"y": conv(name="a")(left), "x": conv(4, name="b")(right)},
        )
        result = exactly(model, {"right": X, "left": X + 1})

        made = result.model({"right": X, "left": X + 1})
        assert {key: value.shape[-1] for key, value in made.items()} == {"y": 6, "x": 4}

    @pytest.mark.parametrize("order", ORDERS)
    @pytest.mark.parametrize("pairs", [1, 2])
    @pytest.mark.parametrize("activation", [None, "sigmoid"])
    def test_convolution_that_is_an_output_keeps_its_name(self, order, pairs, activation):
        image = keras.Input((8, 8, 6))
        x = conv(name="hidden")(image)
        model = keras.Model(image, [conv(1, "mask", activation=activation)(x), x])
        result = rewrite(model, pairs=pairs, order=order)

        assert result.model.output_names == ["mask", "hidden"]

    def test_shared_convolution_that_ends_in_an_output_keeps_its_name(self):
        shared, image = conv(name="shared"), keras.Input((8, 8, 6))
        model = keras.Model(image, shared(shared(image)))

        assert exactly(model).model.output_names == ["shared"]

    def test_new_names_avoid_the_old_ones(self):
        image = keras.Input((8, 8, 6))
        x = layers.ReLU(name="conv_dw")(conv(name="conv")(image))
        model = keras.Model(image, layers.ReLU(name="conv_pw_")(x))
        names = [layer.name for layer in rewrite(model, order=ORDERS[0]).model.layers]

        assert names[1:] == ["conv_dw_", "conv_pw", "conv_dw", "conv_pw_"]

    def test_fixed_batch_and_free_sizes_stay(self):
        for shape in [(4, 8, 8, 6), (None, None, None, 6)]:
            image = keras.Input(batch_shape=shape)
            model = keras.Model(image, conv()(image))
            assert rewrite(model).model.input_shape == shape

    def test_integer_inputs_stay(self):
        image = keras.Input((8, 8, 6), dtype="uint8")
        model = keras.Model(image, conv()(layers.Rescaling(1 / 255)(image)))

        assert exactly(model, (100 + 50 * X).astype(np.uint8)).model.inputs[0].dtype == "uint8"


class TestGivenModel:
    @pytest.mark.parametrize("method", ["data", "svd", "random"])
    def test_is_left_as_it_was(self, method):
        image = keras.Input((8, 8, 6))
        x = layers.BatchNormalization()(conv(8, use_bias=False)(image))
        x = layers.Add()([layers.Conv2D(8, 1)(x), conv(8, use_bias=False)(x)])
        x = layers.GlobalAveragePooling2D()(block("inner")(x[..., :6]))
        model = keras.Model(image, layers.Dense(4, activation="softmax")(x))
        before = model.get_config(), [w.copy() for w in model.get_weights()]
        nodes = [len(layer._inbound_nodes) for layer in layers_of(model)]
        result = rewrite(model, calibration=images(20, 8, 8, 6), method=method)
        for weight in result.model.weights:
            weight.assign(weight + 1)

        assert model.get_config() == before[0]
        for weight, old in zip(model.get_weights(), before[1], strict=True):
            np.testing.assert_array_equal(weight, old)
        assert [len(layer._inbound_nodes) for layer in layers_of(model)] == nodes

    def test_that_was_never_called_is_refused(self):
        for model in (keras.Sequential([conv()]), type("Net", (keras.Model,), {})(name="net")):
            with refuses("model-not-called") as caught:
                rewrite(model)
            assert "Call it once" in caught.value.hint

    def test_with_tensorflow_in_its_call_is_refused(self):
        class Net(keras.Model):
            def __init__(self):
                super().__init__(name="net")
                self.conv = conv()

            def call(self, x):
                return tf.nn.relu(self.conv(x))

        model = Net()
        model(X)
        with pytest.raises(
            InputError, match=r"'net' \(Net\): its call\(\) is not made of"
        ) as caught:
            rewrite(model)
        assert "keras.ops" in caught.value.hint


class TestChoices:
    def model(self):
        image = keras.Input((8, 8, 6))
        x = conv(8, "b")(conv(4, "a")(image))
        return keras.Model(image, conv(5, "c")(x))

    @pytest.mark.parametrize("order", ORDERS)
    def test_random_pairs_keep_the_shapes(self, order):
        model = self.model()
        first, again, other = (
            rewrite(model, method="random", pairs=2, order=order, seed=s) for s in (1, 1, 2)
        )

        assert first.model.output_shape == model.output_shape
        assert_same_outputs(first.model, again.model, X, tolerance=0)
        assert not np.allclose(first.model(X), other.model(X))
        assert first.report.method == "random"
        assert first.report.layers[0].pairs == 2

    def test_only_stock_layers_are_made(self):
        made = rewrite(self.model(), pairs=2).model

        assert {type(layer) for layer in layers_of(made)} == {
            layers.InputLayer,
            layers.DepthwiseConv2D,
            layers.Conv2D,
            layers.Add,
        }
        assert all(
            layer.depth_multiplier == 1
            for layer in made.layers
            if isinstance(layer, layers.DepthwiseConv2D)
        )

    def test_plan_can_be_edited_and_replayed(self):
        model = self.model()
        plan = Plan(
            layers=(
                LayerPlan(name="a", spec=None, choice=Choice(pairs=1, order="pointwise-first")),
                LayerPlan(name="c", spec=None, choice=Choice(pairs=3, order="depthwise-first")),
            )
        )
        result = rewrite(model, plan=plan)

        assert result.plan.chosen == plan.chosen
        assert result.report.rewritten == ("a", "c")
        made = {layer.name for layer in result.model.layers}
        assert {"a_pw", "b", "c_dw3"} < made
        assert_same_outputs(result.model, rewrite(model, plan=plan).model, X, tolerance=0)

    def test_plan_of_another_model_is_refused(self):
        plan = Plan(layers=(LayerPlan(name="z", spec=None, choice=Choice(pairs=1)),))
        with refuses("no-such-layer"):
            rewrite(self.model(), plan=plan)

    def test_data_are_needed_to_fit_to_data(self):
        with refuses("needs-calibration") as caught:
            rewrite(self.model(), method="data")
        assert "--calibration" in caught.value.words.hint
