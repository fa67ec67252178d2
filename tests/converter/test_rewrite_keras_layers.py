"""What a convolution brings along, its pairs keep; what is no standard convolution says why."""

import keras
import numpy as np
import pytest
from keras import layers, ops, regularizers
from keras_checks import FULL_RANK, assert_same_outputs, images, layers_of, model_of

from dsconvert.base.errors import InputError
from dsconvert.converter.core.types import ORDERS
from dsconvert.converter.inspect import inspect
from dsconvert.converter.rewrite import rewrite

X = images(3, 8, 8, 6)

each_order = pytest.mark.parametrize("order", ORDERS)
one_and_all = pytest.mark.parametrize("pairs", [1, FULL_RANK])


def separable(layer, x=X):
    """The layer, built, with a kernel that one pair of either order reproduces."""
    layer(x)
    kernel, *rest = layer.get_weights()
    rng = np.random.default_rng(0)
    taps, mixer = rng.normal(size=kernel.shape[:2]), rng.normal(size=kernel.shape[2:])
    layer.set_weights([np.multiply.outer(taps, mixer), *(rng.normal(size=w.shape) for w in rest)])
    return layer


def double(x):
    return x * 2


def relu(x):  # a user's function with the name of one of Keras'
    return ops.relu(x) - 1


class TestActivations:
    @each_order
    @one_and_all
    @pytest.mark.parametrize(
        "activation",
        ["tanh", keras.activations.silu, relu, layers.ReLU(0.5), layers.LeakyReLU(0.3)],
        ids=["name", "function", "own function", "layer", "layer with options"],
    )
    def test_activation_comes_last(self, order, pairs, activation):
        model = model_of(separable(layers.Conv2D(5, 3, activation=activation)))
        rewritten = rewrite(model, pairs=pairs, order=order).model

        assert_same_outputs(model, rewritten, X)
        mine = {id(layer) for layer in layers_of(model)}
        assert not mine & {id(layer) for layer in layers_of(rewritten)}

    @each_order
    @one_and_all
    def test_activity_regulariser_acts_once_on_the_output(self, order, pairs):
        conv = layers.Conv2D(5, 3, activation="relu", activity_regularizer=regularizers.L1(0.1))
        model = model_of(separable(conv))
        rewritten = rewrite(model, pairs=pairs, order=order).model
        model(X), rewritten(X)

        assert float(sum(model.losses)) > 1
        assert float(sum(rewritten.losses)) == pytest.approx(float(sum(model.losses)), rel=1e-5)

    @each_order
    @one_and_all
    def test_linear_layers_get_no_activation_layer(self, order, pairs):
        rewritten = rewrite(model_of(layers.Conv2D(5, 3)), pairs=pairs, order=order).model

        assert not any(type(layer) is layers.Activation for layer in rewritten.layers)


class TestSettings:
    @each_order
    def test_regularisers_and_bias_constraint_are_carried_over(self, order):
        conv = layers.Conv2D(
            5,
            3,
            kernel_regularizer=regularizers.L2(0.1),
            bias_regularizer=regularizers.L1(0.2),
            bias_constraint="non_neg",
        )
        made = rewrite(model_of(conv), pairs=2, order=order).model
        depthwise = [layer for layer in made.layers if type(layer) is layers.DepthwiseConv2D]
        pointwise = [layer for layer in made.layers if type(layer) is layers.Conv2D]
        last = (pointwise if order == "depthwise-first" else depthwise)[-1]

        assert [float(layer.depthwise_regularizer.l2) for layer in depthwise] == pytest.approx(
            [0.1, 0.1]
        )
        assert [float(layer.kernel_regularizer.l2) for layer in pointwise] == pytest.approx(
            [0.1, 0.1]
        )
        assert [layer for layer in made.layers if getattr(layer, "use_bias", False)] == [last]
        assert float(last.bias_regularizer.l1) == pytest.approx(0.2)
        assert isinstance(last.bias_constraint, keras.constraints.NonNeg)

    def test_kernel_constraint_is_dropped_with_a_note(self):
        conv = layers.Conv2D(5, 3, kernel_constraint="max_norm", name="bound")
        (note,) = rewrite(model_of(conv)).report.notes

        assert "bound: dropped kernel_constraint MaxNorm" in note

    @each_order
    def test_frozen_layers_stay_frozen(self, order):
        frozen, free = layers.Conv2D(5, 3, trainable=False), layers.Conv2D(6, 3, name="free")
        made = rewrite(model_of(frozen, free), pairs=2, order=order).model

        assert {w.path.split("/")[0][:4] for w in made.trainable_weights} == {"free"}
        assert len(made.non_trainable_weights) == 2 * 2 + 1

    @each_order
    def test_layers_without_bias_stay_so(self, order):
        made = rewrite(model_of(layers.Conv2D(5, 3, use_bias=False)), pairs=2, order=order).model

        assert not any(getattr(layer, "use_bias", False) for layer in made.layers)

    @each_order
    @one_and_all
    def test_mixed_precision_stays(self, order, pairs):
        conv = layers.Conv2D(5, 3, dtype="mixed_bfloat16", activation="relu")
        model = model_of(separable(conv))
        made = rewrite(model, pairs=pairs, order=order).model

        assert {layer.dtype_policy.name for layer in made.layers[1:]} == {"mixed_bfloat16"}
        assert {weight.dtype for weight in made.weights} == {"float32"}
        # bfloat16 has eight bits: each of the roundings on the way costs up to 2⁻⁹ of its value.
        assert_same_outputs(model, made, X, tolerance=2e-2)

    @each_order
    @one_and_all
    def test_channels_first(self, order, pairs):
        x = X.transpose(0, 3, 1, 2)
        conv = layers.Conv2D(5, 3, strides=2, padding="same", data_format="channels_first")
        model = model_of(separable(conv, x), shape=(6, 8, 8))
        result = rewrite(model, pairs=pairs, order=order)

        assert_same_outputs(model, result.model, x)
        assert result.report.macs_before == result.report.layers[0].macs_before == 9 * 6 * 5 * 16


class Scale(layers.Layer):
    """A custom layer with weights of its own and inside another layer."""

    def __init__(self, factor, **more):
        super().__init__(**more)
        self.factor = factor
        self.dense = layers.Dense(4)

    def call(self, x):
        return self.dense(x) * self.factor

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


class Closed(layers.Layer):
    """A layer that cannot say how it was made."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def call(self, x):
        return self.function(x)


class TestOtherLayers:
    @pytest.mark.parametrize(
        "layer",
        [
            Scale(3.0),
            layers.Lambda(lambda x: ops.relu(x) + len(ORDERS)),
            layers.Lambda(double, output_shape=lambda shape: shape),
            layers.Lambda(lambda x, by: x + by, arguments={"by": 2}),
            layers.Activation(relu),
            layers.Dense(4, activation=lambda x: x * 3),
            layers.Dense(4, kernel_initializer=lambda shape, dtype: ops.ones(shape, dtype)),
            layers.PReLU(alpha_initializer="normal"),
            layers.BatchNormalization(moving_mean_initializer="normal"),
            layers.SeparableConv2D(4, 3),
            layers.Bidirectional(layers.ConvLSTM1D(2, 3)),
        ],
        ids=lambda layer: layer.name,
    )
    def test_survive(self, layer):
        model = model_of(layers.Conv2D(5, 3, name="conv"), layer)
        result = rewrite(model, pairs=FULL_RANK)

        assert "conv" in result.report.rewritten
        assert layer not in result.model.layers
        assert_same_outputs(model, result.model, X)

    def test_that_cannot_be_copied_are_named(self):
        with pytest.raises(InputError, match=r"'closed.*' \(Closed\) cannot be copied") as caught:
            rewrite(model_of(layers.Conv2D(5, 3), Closed(double)))
        assert "get_config()" in caught.value.hint


class OwnConvolution(layers.Conv2D):
    pass


class TestReasons:
    @pytest.mark.parametrize(
        ("layer", "code", "text"),
        [
            (layers.Conv2D(6, 3, groups=2), "groups", "2 groups"),
            (layers.Conv2D(6, 1), "pointwise", "1×1"),
            (layers.Conv2D(6, 3, strides=(1, 2)), "strides", "(1, 2)"),
            (layers.DepthwiseConv2D(3), "depthwise", "already"),
            (layers.SeparableConv2D(6, 3), "depthwise", "SeparableConv2D"),
            (layers.Conv2DTranspose(6, 3), "transpose", "Conv2DTranspose"),
            (OwnConvolution(6, 3), "custom", "OwnConvolution"),
        ],
    )
    def test_of_two_dimensional_layers(self, layer, code, text):
        model = model_of(layer)
        result = rewrite(model)
        (report,) = result.report.layers

        assert (report.name, report.reason.code) == (layer.name, code)
        assert text in report.reason.text
        assert report.macs_after == report.macs_before
        assert_same_outputs(model, result.model, X)

    @pytest.mark.parametrize(
        ("layer", "shape", "code", "text"),
        [
            (layers.Conv1D(6, 3), (8, 6), "rank", "Conv1D"),
            (layers.Conv3D(6, 3), (8, 8, 8, 6), "rank", "Conv3D"),
            (layers.Conv1DTranspose(6, 3), (8, 6), "transpose", "Conv1DTranspose"),
            (layers.DepthwiseConv1D(3), (8, 6), "depthwise", "DepthwiseConv1D"),
            (
                layers.TimeDistributed(layers.Conv2D(6, 3, name="inner")),
                (4, 8, 8, 6),
                "hidden",
                "inner inside TimeDistributed",
            ),
        ],
    )
    def test_of_other_layers(self, layer, shape, code, text):
        model = model_of(layer, shape=shape)
        result = rewrite(model)
        (report,) = result.report.layers

        assert (report.name, report.reason.code) == (layer.name, code)
        assert text in report.reason.text
        assert_same_outputs(model, result.model, images(2, *shape))

    def test_stems_are_rewritten_only_by_name(self):
        model = model_of(layers.Conv2D(6, 3, name="stem"), shape=(8, 8, 3))
        (report,) = rewrite(model).report.layers

        assert report.reason.code == "stem"
        assert "3 input channels" in report.reason.text
        assert rewrite(model, include=["stem"]).report.rewritten == ("stem",)


def test_weights_that_are_not_finite_are_left_alone():
    layer = separable(layers.Conv2D(6, 3, name="bad"))
    kernel, bias = layer.get_weights()
    kernel.flat[3] = np.nan
    layer.set_weights([kernel, bias])
    (row,) = inspect(model_of(layer)).convolutions
    assert row.reason.code == "not-finite"
