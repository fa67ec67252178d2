"""Fitting Keras models to data: better than the weights alone, and kept to what was measured."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from keras_checks import (
    assert_same_outputs,
    conv,
    first_channels,
    images,
    layers_of,
    model_of,
    norm,
    outputs,
    residual,
)
from refusals import refuses

from dsconvert.base import fidelity
from dsconvert.base.errors import InputError
from dsconvert.converter.rewrite import rewrite

X = images(60, 8, 8, 6)
HELD_OUT = 12


@pytest.fixture(scope="module")
def calibration(digits):
    return digits[0][:150]


class TestTrainedNetwork:
    """On scikit-learn's digits: fitted to 150 training images, judged on 597 others."""

    @pytest.mark.parametrize("pairs", [1, 2])
    def test_data_beat_weights(self, digits, digits_cnn, calibration, pairs):
        test, labels = digits[0][1200:], digits[1][1200:]
        by_weights = rewrite(digits_cnn, pairs=pairs)
        from_data = rewrite(digits_cnn, pairs=pairs, calibration=calibration)

        def output_error(result):
            return fidelity.output_error(outputs(digits_cnn, test), outputs(result.model, test))

        def accuracy(model):
            return fidelity.top_k(outputs(model, test)[0], labels, 1).value

        assert from_data.report.rewritten == by_weights.report.rewritten == ("middle", "last")
        assert accuracy(digits_cnn) > 0.9
        assert output_error(from_data) < 0.5 * output_error(by_weights)
        assert accuracy(from_data.model) > accuracy(by_weights.model)

    def test_report_says_how_it_was_fitted(self, digits_cnn, calibration):
        report = rewrite(digits_cnn, calibration=calibration).report

        assert report.method == "data"
        assert (report.calibration_images, report.held_out_images) == (120, 30)
        strategies = {trial.strategy for trial in report.trials}
        assert strategies == {"clean inputs", "sequential", "sequential + match_variance"}
        assert [trial.output_error for trial in report.trials] == sorted(
            t.output_error for t in report.trials
        )
        stem, *rewritten = report.layers
        assert (stem.reason.code, stem.data_error) == ("stem", None)
        for layer in rewritten:
            assert 0 < layer.data_error < min(layer.weight_error, 1)

    def test_same_seed_same_model(self, digits_cnn, calibration):
        first, again, other = (
            rewrite(digits_cnn, calibration=calibration, seed=seed).model for seed in (3, 3, 4)
        )

        assert_same_outputs(first, again, calibration, tolerance=0)
        assert any(
            not np.array_equal(a, b)
            for a, b in zip(first.get_weights(), other.get_weights(), strict=True)
        )

    def test_little_memory_gives_the_same_model(self, digits, digits_cnn, monkeypatch):
        calibration, spilled = digits[0][:300], []
        memmap = np.memmap
        monkeypatch.setattr(np, "memmap", lambda *a, **k: spilled.append(1) or memmap(*a, **k))
        plenty = rewrite(digits_cnn, calibration=calibration)
        assert not spilled
        # The moments of the widest layer, 24·9 features, take up to 6·8·216² ≈ 2.2 MB of it.
        little = rewrite(digits_cnn, calibration=calibration, memory=5_000_000)

        assert spilled
        assert_same_outputs(plenty.model, little.model, calibration, tolerance=0)

    def test_very_little_memory_still_fits(self, digits, digits_cnn, calibration):
        test = digits[0][1200:]
        result = rewrite(digits_cnn, calibration=calibration, memory=500_000)
        by_weights = rewrite(digits_cnn)

        assert any("blocks of channels" in note for note in result.report.layers[2].notes)
        assert fidelity.output_error(outputs(digits_cnn, test), outputs(result.model, test)) < (
            fidelity.output_error(outputs(digits_cnn, test), outputs(by_weights.model, test))
        )
        with pytest.raises(InputError, match="pointwise-first fit of 16 channels") as caught:
            rewrite(digits_cnn, calibration=calibration, memory=500_000, order="pointwise-first")
        assert "--memory" in caught.value.words.hint


def plain():
    return model_of(conv(8, activation="relu"), conv(4), layers.Flatten(), layers.Dense(3))


def without_bias():
    return model_of(conv(8, use_bias=False), layers.ReLU(), conv(4, use_bias=False))


def normalised():
    return model_of(conv(8, use_bias=False), norm(), layers.ReLU(), conv(8), norm(), layers.ReLU())


def nested():
    inner = model_of(conv(5), norm(), layers.ReLU(), shape=(8, 8, 8))
    image = keras.Input((8, 8, 6))
    return keras.Model(image, layers.GlobalMaxPooling2D()(conv(3)(inner(conv(8)(image)))))


@pytest.mark.parametrize("pairs", [1, 2])
@pytest.mark.parametrize(
    "build", [plain, without_bias, normalised, residual, nested, first_channels]
)
def test_new_model_does_what_was_measured(build, pairs):
    """The fit swaps kernels in the old layers; the new model must act exactly as those did."""
    keras.utils.set_random_seed(0)
    model = build()
    result = rewrite(model, calibration=X, pairs=pairs, seed=5)
    unseen = X[np.random.default_rng(5).permutation(len(X))[-HELD_OUT:]]
    output_error = fidelity.output_error(outputs(model, unseen), outputs(result.model, unseen))

    assert result.report.held_out_images == HELD_OUT
    assert len(result.report.trials) >= 2
    assert result.report.trials[0].output_error == pytest.approx(output_error, rel=1e-3)
    assert result.report.params_after == result.model.count_params()
    refitted = set(result.report.refitted)
    assert refitted <= {layer.name for layer in layers_of(result.model)}


class TestBiases:
    def test_layer_before_a_norm_leaves_its_bias_there(self):
        keras.utils.set_random_seed(0)
        model = normalised()
        made = rewrite(model, calibration=X).model
        (old, *_), (new, *_) = (
            [layer for layer in m.layers if type(layer) is layers.BatchNormalization]
            for m in (model, made)
        )

        biased = [layer.name for layer in made.layers if getattr(layer, "use_bias", False)]
        assert len(biased) == 1  # the second convolution had one
        assert not np.allclose(old.moving_mean, new.moving_mean)
        np.testing.assert_array_equal(old.gamma, new.gamma)

    def test_layer_without_bias_or_norm_is_given_one(self):
        keras.utils.set_random_seed(0)
        model = model_of(conv(5, use_bias=False))
        x = X + 1  # so that there is a mean to miss
        result = rewrite(model, calibration=x)
        (before,), (after,) = outputs(model, x), outputs(result.model, x)

        count = sum(w.size for w in result.model.get_weights())
        assert result.report.layers[0].params_after == result.report.params_after == count
        assert [w.shape for w in result.model.get_weights()].count((5,)) == 1
        spread = before.std() / np.sqrt(before[..., 0].size)
        assert np.abs((after - before).mean(axis=(0, 1, 2))).max() < 4 * spread
        assert not model.layers[0].use_bias
        assert model.layers[0].bias is None


class TestInputs:
    def test_small_whole_numbers(self):
        pictures = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 6), dtype=np.uint8)
        for dtype in ("uint8", "float32"):
            keras.utils.set_random_seed(0)
            model = model_of(layers.Rescaling(1 / 255), conv(8), conv(4), dtype=dtype)
            as_numbers = rewrite(model, calibration=pictures).model
            as_floats = rewrite(model, calibration=pictures.astype(np.float32)).model
            assert_same_outputs(as_numbers, as_floats, pictures, tolerance=0)

    @pytest.mark.parametrize("baked", [False, True])
    def test_fixed_batch(self, baked):
        image = keras.Input(batch_shape=(8, 8, 8, 6))
        x = conv(4)(image)
        x = ops.reshape(x, (8, -1)) if baked else layers.Flatten()(x)
        model = keras.Model(image, layers.Dense(3)(x))
        result = rewrite(model, calibration=X)  # 48 + 12 images: no multiple of eight

        assert result.report.trials[0].output_error < 1
        assert result.model.input_shape == (8, 8, 8, 6)

    def test_free_sizes(self):
        keras.utils.set_random_seed(0)
        stack = (conv(8), conv(4), layers.GlobalAveragePooling2D())
        free = model_of(*stack, shape=(None, None, 6))
        fixed = model_of(*(type(layer).from_config(layer.get_config()) for layer in stack))
        fixed.set_weights(free.get_weights())
        made = rewrite(free, calibration=X).model

        assert_same_outputs(made, rewrite(fixed, calibration=X).model, X, tolerance=1e-6)
        assert made(images(1, 11, 5, 6)).shape == (1, 4)

    def test_channels_first_is_fitted_as_channels_last(self):
        keras.utils.set_random_seed(0)
        made = []
        for form in ("channels_last", "channels_first"):
            first = form == "channels_first"
            model = model_of(
                conv(8, data_format=form, use_bias=False),
                layers.BatchNormalization(axis=1 if first else 3),
                conv(5, data_format=form, strides=2),
                shape=(6, 8, 7) if first else (8, 7, 6),
            )
            if made:
                model.set_weights(made[0][0].get_weights())
            x = X[:, :, :7].transpose(0, 3, 1, 2) if first else X[:, :, :7]
            made.append((model, outputs(rewrite(model, calibration=x).model, x)[0]))
        (_, last), (_, first) = made

        np.testing.assert_allclose(first.transpose(0, 2, 3, 1), last, atol=1e-3)

    def test_several_inputs(self):
        left, right = keras.Input((8, 8, 6), name="left"), keras.Input((4, 4, 5), name="right")
        pooled = [layers.GlobalAveragePooling2D()(conv()(x)) for x in (left, right)]
        model = keras.Model({"left": left, "right": right}, layers.Add()(pooled))
        result = rewrite(model, calibration=[X, images(60, 4, 4, 5)])

        assert len(result.report.rewritten) == 2
        assert all(layer.data_error < 1 for layer in result.report.layers)

    def test_mixed_precision(self):
        model = model_of(
            conv(8, use_bias=False, dtype="mixed_bfloat16"),
            layers.BatchNormalization(dtype="mixed_bfloat16"),
            conv(4, use_bias=False, dtype="mixed_bfloat16"),
        )
        result = rewrite(model, calibration=X, pairs=4)

        assert {layer.dtype_policy.name for layer in result.model.layers[1:]} == {"mixed_bfloat16"}
        assert result.report.trials[0].output_error < 0.5

    def test_layers_in_training_mode_do_not_disturb_the_fit(self):
        keras.utils.set_random_seed(0)
        image = keras.Input((8, 8, 6))
        x = layers.Dropout(0.5)(conv(8)(image), training=True)
        model = keras.Model(image, conv(4)(x))
        first, again = (rewrite(model, calibration=X) for _ in range(2))

        assert first.report == again.report

    @pytest.mark.parametrize("ends", [False, True])
    def test_samples_that_depend_on_each_other_are_no_bug(self, ends):
        image = keras.Input((8, 8, 6))
        x = conv(8)(image)
        mixed = ops.softmax(conv(4)(x), axis=0) if ends else conv(4)(x - ops.mean(x, axis=0))
        with refuses("samples-not-independent") as caught:
            rewrite(keras.Model(image, mixed), calibration=X, pairs=2)
        assert "svd" in caught.value.hint

    def test_shared_layers(self):
        shared = conv(6)
        image = keras.Input((8, 8, 6))
        model = keras.Model(image, shared(layers.ReLU()(shared(image))))
        result = rewrite(model, calibration=X, pairs=2)

        assert len(result.report.layers) == 1
        assert result.report.layers[0].data_error < 1

    def test_cost_is_judged_at_the_real_size(self):
        # On 5×5 without padding a pointwise on the input has 25 positions, one after it has 9.
        model = model_of(layers.Conv2D(12, 3), shape=(5, 5, 12))
        report = rewrite(model, calibration=images(20, 5, 5, 12)).report

        assert report.layers[0].order == "depthwise-first"
        assert report.macs_after == 9 * 12 * (9 + 12)

    def test_value_without_batch_axis_needs_no_data(self):
        image = keras.Input((8, 8, 6))
        scale = ops.mean(image)
        model = keras.Model(image, conv()(conv()(image) * scale) * scale)

        with refuses("no-batch-axis") as caught:
            rewrite(model, calibration=X)
        assert "--method svd" in caught.value.words.hint
        assert len(rewrite(model, calibration=X, method="svd").report.rewritten) == 2


class TestUnusableData:
    @pytest.mark.parametrize(
        ("calibration", "message"),
        [
            (images(20, 8, 8, 3), r"\(20, 8, 8, 3\)\], the model takes \[\(None, 8, 8, 6\)\]"),
            (images(20, 8, 8), r"\(20, 8, 8\)"),
            ([X, X], r"\(60, 8, 8, 6\), \(60, 8, 8, 6\)"),
            ([], r"shape \[\]"),
            (images(9, 8, 8, 6), "9 calibration images are too few: at least 10"),
            (np.where(X > 3, np.nan, X), "NaN or infinity in samples 0, "),
            (np.where(X > 3, np.inf, X), "NaN or infinity in samples 0, "),
        ],
        ids=["channels", "rank", "inputs", "none", "few", "nan", "infinite"],
    )
    def test_is_refused(self, calibration, message):
        with pytest.raises(InputError, match=message) as caught:
            rewrite(model_of(conv()), calibration=calibration)
        assert caught.value.hint

    def test_of_different_lengths_is_refused(self):
        left, right = keras.Input((8, 8, 6)), keras.Input((8, 8, 6))
        model = keras.Model([left, right], conv()(left) + conv()(right))
        with pytest.raises(InputError, match=r"different numbers of images: \[60, 59\]"):
            rewrite(model, calibration=[X, X[1:]])
