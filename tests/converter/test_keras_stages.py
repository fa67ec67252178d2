"""A Keras model cut into stages: what the fit is told of each layer, and that nothing is lost."""

import keras
import numpy as np
import pytest
from keras import layers
from keras_checks import images, model_of, outputs

from dsconvert.converter.backends.keras.graph import flatten
from dsconvert.converter.backends.keras.stages import KerasStages, norm_changes
from dsconvert.converter.core.stages import Norm, Weights

X = images(4, 8, 8, 6)


def conv(filters=6, name=None, **more):
    return layers.Conv2D(filters, 3, padding="same", name=name, **more)


def norm(**more):
    """A BatchNormalization that has seen data."""
    uniform = keras.initializers.RandomUniform(0.5, 2, seed=1)
    return layers.BatchNormalization(
        gamma_initializer=uniform,
        moving_mean_initializer=uniform,
        moving_variance_initializer=uniform,
        **more,
    )


def stages_of(model, *rewritten, **more):
    return KerasStages(flatten(model), rewritten, **more)


def sites_of(model, *rewritten, **more):
    """The sites by name; of a shared layer the last call."""
    return {site.name: site for site in stages_of(model, *rewritten, **more).sites[1:]}


def residual(branch, shortcut):
    """A model of x → shortcut(x) + branch(x) with x a rewritten convolution's output."""
    image = keras.Input((8, 8, 6))
    x = conv(name="first")(image)
    other = x
    for layer in shortcut:
        other = layer(other)
    for layer in branch:
        x = layer(x)
    return keras.Model(image, layers.Add()([other, x]))


def walk(stages, values):
    """The outputs, computed stage by stage."""
    values = dict(zip(stages.inputs, values, strict=True))
    for stage in range(len(stages.sites)):
        made = stages.run(stage, values)
        assert not made.keys() & values.keys()  # what is there already is not copied
        values = {v: made[v] if v in made else values[v] for v in stages.live_after(stage)}
    return [values[value] for value in stages.outputs]


class TestWalk:
    def test_stages_compute_what_the_model_computes(self):
        inner = model_of(conv(8, "inner"), norm(), layers.ReLU())
        left, right = keras.Input((8, 8, 6)), keras.Input((8, 8, 6))
        shared = conv(6, "shared")
        x = layers.Add()([shared(left), shared(right)])
        y = layers.Concatenate()([inner(x), layers.Conv2D(3, 1, name="one")(x), right])
        pooled = layers.Dropout(0.5)(layers.GlobalAveragePooling2D()(y))
        scores = layers.Dense(4, activation="softmax", name="scores")(pooled)
        model = keras.Model([left, right], [scores, x, left])
        stages = stages_of(model, "inner", "shared")
        given = [X, X + 1]

        assert [site.name for site in stages.sites[1:]].count("shared") == 2
        for got, expected in zip(walk(stages, given), outputs(model, given), strict=True):
            np.testing.assert_allclose(got, expected, atol=1e-5)

    def test_only_what_is_needed_later_is_kept(self):
        stages = stages_of(model_of(conv(8, "a"), layers.ReLU(), conv(4, "b")), "a", "b")

        assert [len(stages.live_after(stage)) for stage in range(3)] == [1, 1, 1]

    def test_weights_are_lent(self):
        model = model_of(conv(5, "a", use_bias=False), norm(), conv(3, "b", use_bias=False))
        stages = stages_of(model, "a", "b")
        before = [w.copy() for w in model.get_weights()]
        first = Norm(np.ones(5), np.full(5, 2.0), np.full(5, 4.0))
        lent = {
            1: Weights(np.ones((3, 3, 6, 5)), None, first),
            2: Weights(np.ones((3, 3, 5, 3)), np.arange(3.0)),
        }
        old = walk(stages, [X])[0]
        values = {0: X}
        for stage in range(3):
            with stages.using(stage, lent.get(stage)):
                values = stages.run(stage, values) or values
        (new,) = values.values()

        assert not np.allclose(new, old)
        assert np.ptp(new - np.arange(3), axis=3).max() < 1e-4  # equal kernels, and the lent bias
        for weight, trained in zip(model.get_weights(), before, strict=True):
            np.testing.assert_array_equal(weight, trained)
        np.testing.assert_array_equal(walk(stages, [X])[0], old)

    def test_weights_come_back_after_a_failure(self):
        model = model_of(conv(5, "a"))
        stages, before = stages_of(model, "a"), outputs(model, X)

        def fail():
            with stages.using(1, Weights(np.zeros((3, 3, 6, 5)), np.zeros(5))):
                raise RuntimeError

        with pytest.raises(RuntimeError):
            fail()
        np.testing.assert_array_equal(outputs(model, X)[0], before[0])


class TestSites:
    def test_of_a_convolution(self):
        model = model_of(conv(5, "a", strides=2))
        site = sites_of(model, "a")["a"]

        assert (site.role, site.reads, site.call, site.calls) == ("conv", 0, 0, 1)
        assert site.spec.input_sizes == ((8, 8),)
        assert (site.norm, site.beside, site.channels_first) == (None, None, False)
        np.testing.assert_array_equal(site.kernel, model.layers[0].kernel)
        np.testing.assert_array_equal(site.bias, model.layers[0].bias)

    def test_of_a_shared_convolution(self):
        shared, image = conv(6, "s"), keras.Input((8, 8, 6))
        model = keras.Model(image, shared(layers.MaxPooling2D()(norm()(shared(image)))))
        first, last = stages_of(model, "s").sites[1:]

        assert (first.call, last.call, first.calls, last.calls) == (0, 1, 2, 2)
        assert first.spec == last.spec
        assert last.spec.input_sizes == ((8, 8), (4, 4))
        assert first.norm is None  # it does not belong to all calls

    def test_layers_that_keep_their_form(self):
        model = model_of(
            conv(8, "a"),
            layers.Conv2D(5, 1, name="one"),
            layers.Conv2D(5, 1, use_bias=False, name="normed"),
            norm(),
            layers.Conv2D(5, 1, use_bias=False, name="bare"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(7, activation="relu", name="hidden"),
            layers.Dense(4, name="head"),
            layers.Softmax(),
        )
        roles = {name: site.role for name, site in sites_of(model, "a").items()}

        assert roles == {"a": "conv", "one": "shortcut", "normed": "shortcut", "head": "head"}
        assert list(sites_of(model, "a", refit=False)) == ["a"]

    @pytest.mark.parametrize(
        ("head", "more"),
        [
            (layers.Dense(3, use_bias=False), []),  # nowhere to put a new mean
            (layers.Dense(3), [layers.BatchNormalization()]),  # not the last one
            (layers.Dense(3), [layers.Reshape((1, 3)), layers.Softmax()]),
        ],
    )
    def test_dense_layers_that_are_no_heads(self, head, more):
        model = model_of(conv(8, "a"), layers.Flatten(), head, *more)

        assert list(sites_of(model, "a")) == ["a"]
        assert list(sites_of(model_of(conv(8, "a"), layers.Dense(3)), "a")) == ["a"]


class TestNorms:
    def test_own_norm_with_its_figures(self):
        layer = norm(epsilon=0.01)
        site = sites_of(model_of(conv(5, "a"), layer), "a")["a"]
        gamma, _, mean, variance = layer.get_weights()

        np.testing.assert_allclose(site.norm.variance, variance + 0.01)
        np.testing.assert_allclose(site.norm.gain, gamma / np.sqrt(variance + 0.01))
        np.testing.assert_allclose(site.norm.mean, mean)
        changes = norm_changes(layer, site.norm)
        assert [variable.path for variable, _ in changes] == [
            layer.moving_mean.path,
            layer.moving_variance.path,
        ]
        for (_, value), old in zip(changes, (mean, variance), strict=True):
            np.testing.assert_allclose(value, old, atol=1e-12)

    def test_norm_without_scale(self):
        site = sites_of(model_of(conv(5, "a"), norm(scale=False)), "a")["a"]

        np.testing.assert_allclose(site.norm.gain, 1 / np.sqrt(site.norm.variance))

    def test_channels_first(self):
        first = {"data_format": "channels_first"}
        own = sites_of(model_of(conv(5, "a", **first), norm(axis=1), shape=(6, 8, 8)), "a")["a"]
        other = sites_of(model_of(conv(5, "a", **first), norm(axis=3), shape=(6, 8, 8)), "a")["a"]

        assert own.channels_first
        assert own.norm is not None
        assert other.norm is None

    @pytest.mark.parametrize(
        "stack",
        [
            [conv(5, "a", activation="relu"), norm()],
            [conv(5, "a"), layers.ReLU(), norm()],
            [conv(5, "a"), norm(axis=1)],
        ],
        ids=["after the activation", "later", "over rows"],
    )
    def test_norms_of_something_else(self, stack):
        assert sites_of(model_of(*stack), "a")["a"].norm is None

    def test_norm_that_others_read_or_share(self):
        image = keras.Input((8, 8, 6))
        x = conv(5, "a")(image)
        read_twice = keras.Model(image, [norm()(x), layers.ReLU()(x)])
        shared = norm()
        called_twice = keras.Model(image, [shared(conv(5, "a")(image)), shared(conv(5)(image))])

        assert sites_of(read_twice, "a")["a"].norm is None
        assert sites_of(called_twice, "a")["a"].norm is None


class TestBeside:
    def test_last_layer_of_a_sum_knows_the_other_side(self):
        for branch in ([conv(6, "b")], [conv(6, "b"), norm()]):
            sites = sites_of(residual(branch, [layers.ReLU()]), "first", "b")
            assert sites["first"].beside is None
            assert sites["b"].beside is not None

    def test_first_layer_of_a_sum_does_not(self):
        sites = sites_of(residual([layers.ReLU()], [conv(6, "b")]), "first", "b")

        assert sites["b"].beside is None

    def test_nothing_in_between_is_known_either_way(self):
        for model in (residual([conv(6, "b")], []), residual([], [conv(6, "b")])):
            sites = sites_of(model, "first", "b")
            assert sites["b"].beside == sites["b"].reads

    def test_it_is_the_value_that_is_added(self):
        model = residual([conv(6, "b")], [layers.ReLU(name="other")])
        stages = stages_of(model, "first", "b")
        site = stages.sites[2]
        values = {0: X}
        for stage in range(2):
            values |= stages.run(stage, values)
        expected = keras.Model(model.inputs[0], model.get_layer("other").output)(X)

        np.testing.assert_allclose(values[site.beside], expected, atol=1e-6)

    @pytest.mark.parametrize(
        ("branch", "shortcut"),
        [
            ([conv(6, "b", activation="relu")], [layers.ReLU()]),
            ([conv(6, "b"), layers.ReLU()], [layers.ReLU()]),
            ([conv(6, "b")], [layers.GlobalMaxPooling2D(keepdims=True)]),
        ],
        ids=["activated", "activated later", "broadcast"],
    )
    def test_sums_that_are_not_its_own(self, branch, shortcut):
        assert sites_of(residual(branch, shortcut), "first", "b")["b"].beside is None


class TestLora:
    """A layer that has LoRA weights computes its kernel: it is no variable to write into."""

    def model(self, last):
        image = keras.Input((8, 8, 6))
        x = layers.GlobalAveragePooling2D()(conv(8, "first")(image))
        return keras.Model(image, last(x))

    def test_a_head_is_left_as_it_is(self):
        plain = sites_of(self.model(layers.Dense(4, name="head")), "first", refit=True)
        lora = sites_of(self.model(layers.Dense(4, name="head", lora_rank=2)), "first", refit=True)

        assert set(plain) == {"first", "head"}
        assert set(lora) == {"first"}

    def test_a_pointwise_convolution_is_left_as_it_is(self):
        def model(**more):
            image = keras.Input((8, 8, 6))
            x = conv(8, "first")(image)
            return keras.Model(image, layers.Conv2D(4, 1, name="point", **more)(x))

        assert set(sites_of(model(), "first", refit=True)) == {"first", "point"}
        assert set(sites_of(model(lora_rank=2), "first", refit=True)) == {"first"}
