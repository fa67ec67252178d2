"""What a convolution brings along, its pairs keep; what is no standard convolution says why."""

import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
from dsconvert.converter import rewrite
from dsconvert.converter.core.errors import InputError
from dsconvert.converter.core.types import ORDERS
from dsconvert.converter.keras_graph.cost import model_macs
from keras import layers, ops, regularizers
from keras_checks import FULL_RANK, assert_same_outputs, images, layers_of, outputs

X = images(3, 8, 8, 6)

each_order = pytest.mark.parametrize("order", ORDERS)
one_and_all = pytest.mark.parametrize("pairs", [1, FULL_RANK])


def model_of(*stack, shape=(8, 8, 6)):
    """A Sequential model of these layers."""
    return keras.Sequential([keras.Input(shape), *stack])


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

        assert [layer.depthwise_regularizer.l2 for layer in depthwise] == pytest.approx([0.1, 0.1])
        assert [layer.kernel_regularizer.l2 for layer in pointwise] == pytest.approx([0.1, 0.1])
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


class TestReport:
    @each_order
    @pytest.mark.parametrize("pairs", [1, 2])
    def test_counts_are_those_of_the_model(self, order, pairs):
        model = model_of(
            layers.Conv2D(8, 3, name="a"),
            layers.Conv2D(6, 1, name="one"),
            layers.Conv2D(7, (1, 3), strides=2, use_bias=False, name="b"),
        )
        result = rewrite(model, pairs=pairs, order=order)
        report = result.report

        assert report.params_before == sum(w.size for w in model.get_weights())
        assert report.params_after == sum(w.size for w in result.model.get_weights())
        assert sum(layer.params_before for layer in report.layers) == report.params_before
        assert sum(layer.params_after for layer in report.layers) == report.params_after
        # Every weight of every layer of this model is used once per output position.
        for made, macs in ((model, report.macs_before), (result.model, report.macs_after)):
            weights = [
                np.prod(layer.output.shape[1:3]) * sum(w.size for w in layer.get_weights()[:1])
                for layer in made.layers
                if layer.weights
            ]
            assert macs == model_macs(made) == sum(weights)
        assert sum(layer.macs_before for layer in report.layers) == report.macs_before
        assert sum(layer.macs_after for layer in report.layers) == report.macs_after

    def test_dense_and_other_convolutions_count(self):
        model = model_of(
            layers.DepthwiseConv2D(3, name="dw"),  # 9·6 on 6×6
            layers.Conv2DTranspose(4, 2, strides=2, name="up"),  # 4·6·4 per input position
            layers.SeparableConv2D(5, 3, name="sep"),  # 9·4 + 4·5 on 10×10
            layers.Dense(2),  # 5·2 on 10×10
            layers.GlobalMaxPooling2D(),
            layers.Dense(3),
        )

        expected = 54 * 36 + 96 * 36 + 56 * 100 + 10 * 100 + 6
        assert model_macs(model) == expected
        for layer in model.layers:
            layer.trainable = False
        assert model_macs(model) == expected

    def test_free_sizes_have_no_macs(self):
        model = model_of(layers.Conv2D(5, 3), shape=(None, None, 6))
        report = rewrite(model).report

        assert report.macs_before is report.macs_after is report.layers[0].macs_after is None
        assert report.params_after < report.params_before


def test_saved_models_load_where_dsconvert_is_not(tmp_path):
    image = keras.Input((8, 8, 6), name="image")
    inner = model_of(layers.Conv2D(6, 3, padding="same", activation="relu"))
    x = layers.BatchNormalization()(layers.Conv2D(6, 3, dtype="mixed_bfloat16")(inner(image)))
    x = layers.Conv2D(5, 3, activation=layers.ReLU(6.0), name="map")(x)
    model = keras.Model(image, [layers.GlobalMaxPooling2D(name="top")(x), x])
    x = images(20, 8, 8, 6)
    rewritten = rewrite(model, pairs=2, calibration=x).model
    paths = [tmp_path / "model.keras", tmp_path / "model.h5"]
    for path in paths:
        rewritten.save(path)
    np.savez(tmp_path / "data.npz", x, *outputs(rewritten, x))
    code = f"""
        import sys
        import keras
        import numpy as np

        x, *expected = np.load({str(tmp_path / "data.npz")!r}).values()
        for path in {[str(path) for path in paths]!r}:
            model = keras.models.load_model(path, compile=False)
            assert model.output_names == ["top", "map"], model.output_names
            for output, reference in zip(model(x), expected, strict=True):
                np.testing.assert_allclose(output, reference, rtol=1e-6, atol=1e-6)
        assert not any(name.startswith("dsconvert") for name in sys.modules)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
