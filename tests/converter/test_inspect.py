"""What inspection says of each convolution is what rewriting it then does."""

import keras
import msgspec
import numpy as np
import pytest
from keras import layers
from keras_checks import images
from refusals import refuses

from dsconvert.converter.inspect import MOST_PAIRS, Inspection, inspect
from dsconvert.converter.rewrite import rewrite

X = images(30, 8, 8, 3)


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(16, 3, padding="same", activation="relu", name="stem")(image)
    x = layers.Conv2D(16, 3, padding="same", activation="relu", name="same")(x)
    x = layers.Conv2D(24, 3, strides=2, use_bias=False, name="down")(x)
    x = layers.BatchNormalization()(x)
    x = layers.Conv2D(24, 1, name="one")(x)
    x = layers.Conv2DTranspose(4, 2, name="up")(x)
    return keras.Model(image, layers.Dense(5)(layers.Flatten()(x)), name="net")


@pytest.fixture(scope="module")
def seen(model):
    return inspect(model)


@pytest.fixture(scope="module")
def measured(model):
    return inspect(model, calibration=X)


def named(inspection, name):
    return next(found for found in inspection.convolutions if found.name == name)


def test_whole_model(model, seen, measured):
    assert seen.model == "net"
    assert seen.params == model.count_params()
    assert [found.name for found in seen.convolutions] == ["stem", "same", "down", "one", "up"]
    assert (seen.calibration_images, measured.calibration_images) == (0, 30)
    # stem and same have 64 positions, down and one have 9, up reads 9 and makes 16 for the last.
    macs = 64 * (27 * 16 + 144 * 16) + 9 * (144 * 24 + 24 * 24 + 4 * 24 * 4) + 16 * 4 * 5
    assert seen.macs == macs


def test_figures_of_one_convolution(seen):
    same = named(seen, "same")

    assert (same.macs, same.params, same.full_rank) == (64 * 9 * 256, 9 * 256 + 16, 9)
    assert [option.pairs for option in same.options] == list(range(1, MOST_PAIRS + 1))
    assert [option.macs for option in same.options] == [
        T * 64 * 16 * (9 + 16) for T in range(1, MOST_PAIRS + 1)
    ]
    assert [option.params for option in same.options] == [
        T * 16 * (9 + 16) + 16 for T in range(1, MOST_PAIRS + 1)
    ]
    assert np.all(np.diff([option.weight_error for option in same.options]) < 0)
    # With stride 2 a pointwise before it would run on four times the positions.
    assert {option.order for option in named(seen, "down").options} == {"depthwise-first"}


def test_reasons(seen):
    codes = {found.name: found.reason and found.reason.code for found in seen.convolutions}

    assert codes == {
        "stem": "stem",
        "same": None,
        "down": None,
        "one": "pointwise",
        "up": "transpose",
    }
    assert len(named(seen, "stem").options) == MOST_PAIRS  # it could be, if it were named
    assert named(seen, "one").options == ()
    assert named(seen, "one").params == 24 * 24 + 24
    assert named(seen, "up").spec is None


@pytest.mark.parametrize("pairs", [1, 3])
def test_without_data_it_foretells_the_rewrite(model, seen, pairs):
    report = rewrite(model, pairs=pairs, include=["stem", "*"]).report

    for layer in report.layers:
        if layer.pairs is None:
            continue
        option = named(seen, layer.name).options[pairs - 1]
        assert (layer.order, layer.macs_after, layer.params_after) == (
            option.order,
            option.macs,
            option.params,
        )
        assert option.weight_error == pytest.approx(layer.weight_error, abs=1e-7)
        assert option.data_error is None
    assert set(report.rewritten) == {"stem", "same", "down"}


@pytest.mark.parametrize("pairs", [1, 2])
def test_with_data_it_foretells_the_fit(model, measured, pairs):
    # The first convolution's inputs are the same in every way of fitting.
    report = rewrite(model, calibration=X, pairs=pairs, include=["same"]).report
    (layer,) = (layer for layer in report.layers if layer.name == "same")
    option = named(measured, "same").options[pairs - 1]

    assert layer.order == option.order
    # Other patches, and a fifth of the images held out of the fit.
    assert layer.data_error == pytest.approx(option.data_error, rel=0.1)


def test_data_errors_fall_with_more_pairs(measured):
    for name in ("stem", "same", "down"):
        errors = [option.data_error for option in named(measured, name).options]
        assert np.all(np.diff(errors) < 1e-6)
        assert 0 < errors[0] < 1


def test_small_images_are_judged_at_their_size():
    # On 5×5 without padding, a pointwise before it runs on 25 positions, one after it on 9.
    image = keras.Input((5, 5, 12))
    model = keras.Model(image, layers.Conv2D(12, 3)(image))
    (found,) = inspect(model, calibration=images(20, 5, 5, 12)).convolutions

    assert {option.order for option in found.options} == {"depthwise-first"}
    assert [option.macs for option in found.options] == [
        T * 9 * 12 * (9 + 12) for T in range(1, MOST_PAIRS + 1)
    ]


def test_free_sizes():
    image = keras.Input((None, None, 6))
    model = keras.Model(image, layers.Conv2D(8, 3)(image))
    inspection = inspect(model, calibration=images(12, 8, 8, 6))
    (found,) = inspection.convolutions

    assert inspection.macs is found.macs is found.options[0].macs is None
    assert found.options[0].data_error < 1


def test_model_is_left_as_it_was(model):
    before = [weight.copy() for weight in model.get_weights()]
    inspect(model, calibration=X)

    for weight, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, old)


def test_record_survives_json(measured):
    assert msgspec.json.decode(msgspec.json.encode(measured), type=Inspection) == measured


def test_unusable_data_are_refused(model):
    with refuses("too-few-images"):
        inspect(model, calibration=X[:3])


def test_a_bias_is_there_where_keras_takes_it_for_true(model):
    """Keras adds a bias for whatever counts as true, also a word in a file."""
    model = keras.models.clone_model(model)
    model.get_layer("same").use_bias = "yes"
    seen = inspect(model)
    assert named(seen, "same").params == 3 * 3 * 16 * 16 + 16
