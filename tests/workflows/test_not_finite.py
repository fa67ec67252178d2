"""A model that gives NaN by itself is told from a bad student, bad images and large values."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from keras import layers, ops

from dsconvert.base.errors import InputError
from dsconvert.cli import main
from dsconvert.converter.core.fitting.moments import Moments


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Models that give NaN for dark images, never, and behind the last layer; and images."""
    folder = tmp_path_factory.mktemp("not_finite")
    keras.utils.set_random_seed(0)
    for name, least in (("roots", 0.0), ("plain", -10.0), ("late", -10.0)):
        image = keras.Input((8, 8, 3), name="image")
        x = layers.Conv2D(8, 3, name="stem")(ops.sqrt(image - least))
        x = layers.Conv2D(8, 3, name="conv")(x)
        x = ops.sqrt(-ops.square(x)) if name == "late" else x
        keras.Model(image, layers.GlobalAveragePooling2D(name="answer")(x)).save(
            folder / f"{name}.keras"
        )
    images = np.random.default_rng(0).uniform(0.1, 1, (60, 8, 8, 3)).astype(np.float32)
    np.save(folder / "bright.npy", images)
    np.save(folder / "dark.npy", -images)
    return folder


def call(folder, command):
    words = [
        word if word.startswith("-") or not (folder / word).exists() else str(folder / word)
        for word in command.split()
    ]
    return CliRunner().invoke(main, [*words, "-o", str(folder / "out.keras")])


def test_a_teacher_that_gives_nan_is_refused_before_training(folder):
    command = "finetune plain.keras --teacher roots.keras --data dark.npy --epochs 1"
    result = call(folder, command)
    assert result.exit_code == 2
    assert "the teacher itself gives NaN on the samples held out of" in result.stderr
    assert "values of 'answer', on 3 of 3 samples" in result.stderr
    assert "Check the data's preprocessing and the model's weights" in result.stderr
    assert not list(folder.glob("out*"))


def test_rewrite_says_nan_and_not_that_values_are_large(folder):
    result = call(folder, "rewrite roots.keras --calibration dark.npy")
    assert result.exit_code == 2
    assert "gives NaN between two layers on the calibration data" in result.stderr
    assert "too large" not in result.stderr


def test_nan_behind_the_last_layer_is_no_bug_of_the_rewrite(folder):
    result = call(folder, "rewrite late.keras --calibration bright.npy")
    assert result.exit_code == 2
    assert "the model itself gives NaN on the calibration data" in result.stderr
    assert "values of 'output 1'" in result.stderr


@pytest.mark.parametrize("batch", [0, 1])
@pytest.mark.parametrize(
    ("side", "value", "code"),
    [(0, np.nan, "not-finite"), (1, np.nan, "not-finite"), (0, 3e38, "values-overflow")],
)
def test_nan_is_told_from_large_values(side, value, code, batch):
    moments = Moments(3, 2)
    for number in range(2):
        pair = np.ones((4, 3), np.float32), np.ones((4, 2), np.float32)
        if number == batch:
            pair[side][1, 0] = value
            pair[side][2, 0] = -value
        moments.update(*pair)
    with pytest.raises(InputError) as raised:
        moments.statistics()
    assert raised.value.code == code
