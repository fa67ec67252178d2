"""What the user set in Keras holds again when a function returns, and not before."""

from __future__ import annotations

import threading

import keras
import numpy as np
import pytest
from keras import layers

import dsconvert as ds
from dsconvert.base.keras_settings import with_own_settings

OWN = ("float32", "float32", "channels_last")


def settings() -> tuple[str, str, str]:
    config = keras.config
    return config.floatx(), config.dtype_policy().name, config.image_data_format()


@pytest.fixture(
    params=[
        ("float64", "float64", "channels_last"),
        ("float32", "mixed_float16", "channels_last"),
        ("float16", "float16", "channels_first"),
    ],
    ids=["float64", "mixed", "channels first"],
)
def theirs(request):
    floatx, policy, layout = request.param
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(policy)
    keras.config.set_image_data_format(layout)
    yield request.param
    keras.config.set_floatx(OWN[0])
    keras.config.set_dtype_policy(OWN[1])
    keras.config.set_image_data_format(OWN[2])


def test_they_come_back(theirs):
    @with_own_settings
    def failing() -> None:
        assert with_own_settings(settings)() == OWN  # one inside another
        assert settings() == OWN
        raise KeyError

    with pytest.raises(KeyError):
        failing()
    assert settings() == theirs


def test_the_last_of_several_threads_gives_them_back(theirs):
    started, go = threading.Event(), threading.Event()

    @with_own_settings
    def waits() -> None:
        started.set()
        assert go.wait(10)

    thread = threading.Thread(target=waits)
    thread.start()
    assert started.wait(10)
    assert with_own_settings(settings)() == OWN
    assert settings() == (OWN[0], theirs[1], OWN[2])  # the other one still runs
    go.set()
    thread.join()
    assert settings() == theirs


def test_functions_work_in_float32(theirs):
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3), dtype="float32", name="image")
    options = {"padding": "same", "dtype": "float32", "data_format": "channels_last"}
    x = layers.Conv2D(8, 3, **options)(image)
    x = layers.Conv2D(8, 3, **options, name="last")(x)
    x = layers.GlobalAveragePooling2D(dtype="float32", data_format="channels_last")(x)
    model = keras.Model(image, x)
    images = np.random.default_rng(0).normal(size=(32, 8, 8, 3)).astype(np.float32)

    small = ds.rewrite(model, calibration=images, refine="3steps").model
    tuned = ds.finetune(small, model, images, ds.FinetuneSettings(epochs=1)).model

    assert {layer.dtype_policy.name for layer in tuned.layers} == {"float32"}
    assert {str(weight.dtype) for weight in tuned.weights} == {"float32"}
    assert settings() == theirs
