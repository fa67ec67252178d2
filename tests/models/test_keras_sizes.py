"""Keras files that ask for more memory than they explain: refused before any is taken."""

from __future__ import annotations

import json
import zipfile

import h5py
import keras
import pytest
from keras import layers

from dsconvert.base.errors import InputError
from dsconvert.base.size_bounds import VARIABLE
from dsconvert.models.loading import load
from dsconvert.models.loading.sizes import largest_of

FAR = [[10**6, 10**6], [10**6, 10**6]]
SHAPE = (8, 8, 3)


def save(path, *found, shape=SHAPE):
    keras.Sequential([keras.Input(shape), *found]).save(path)


def change(path, kind, wanted):
    """Write other settings into the description of the layers of a kind."""

    def edited(text):
        tree = json.loads(text)
        for layer in tree["config"]["layers"]:
            if layer["class_name"] == kind:
                for part, settings in wanted.items():
                    layer[part].update(settings)
        return json.dumps(tree)

    if path.suffix == ".h5":
        with h5py.File(path, "r+") as file:
            file.attrs["model_config"] = edited(file.attrs["model_config"])
        return
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["config.json"] = edited(members["config.json"]).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def code_of(path):
    with pytest.raises(InputError) as caught:
        load(path)
    return caught.value.code


SAME = {"kernel_size": [2**16, 2**16], "padding": "same"}
WEIGHTS = {
    "filters": (layers.Conv2D, (4, 3), "config", {"filters": 2**31 - 1}),
    "kernel_size": (layers.Conv2D, (4, 1), "config", SAME),
    "depth": (layers.DepthwiseConv2D, (3,), "config", {"depth_multiplier": 10**8}),
    "units": (layers.Dense, (3,), "config", {"units": 10**9}),
    "norm": (layers.BatchNormalization, (), "build_config", {"input_shape": [None, 8, 8, 2**31]}),
}


@pytest.mark.parametrize(
    ("name", "suffix"), [*((name, ".keras") for name in WEIGHTS), ("filters", ".h5")]
)
def test_weights_that_the_file_does_not_hold(name, suffix, tmp_path):
    kind, arguments, part, wanted = WEIGHTS[name]
    path = tmp_path / f"net{suffix}"
    save(path, kind(*arguments))
    change(path, kind.__name__, {part: wanted})
    assert code_of(path) == "weights-do-not-fit"


def test_many_weights_that_together_are_too_many(tmp_path):
    path = tmp_path / "net.h5"
    save(path, *(layers.Conv2D(4, 1) for _ in range(24)))
    change(path, "Conv2D", {"config": {"filters": 500}})  # 250,000 values each
    assert code_of(path) == "weights-do-not-fit"


OUTPUTS = {
    "padding": (layers.ZeroPadding2D(1), {"padding": FAR}),
    "size": (layers.UpSampling2D(2), {"size": [2**16, 2**16]}),
    "height": (layers.Resizing(9, 9), {"height": 10**8}),
    "strides": (layers.Conv2DTranspose(4, 3, strides=2), {"strides": [2**16, 2**16]}),
    "dilation_rate": (layers.Conv2D(4, 3, padding="same"), {"dilation_rate": [2**16, 2**16]}),
    "pool_size": (layers.MaxPooling2D(2, padding="same"), {"pool_size": [2**30, 2**30]}),
}


FREE = (None, None, 3)
CASES = [*((name, SHAPE) for name in OUTPUTS), ("padding", FREE), ("dilation_rate", FREE)]


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_one_setting_of_a_layer(name, shape, tmp_path):
    layer, wanted = OUTPUTS[name]
    path = tmp_path / "net.keras"
    save(path, type(layer).from_config(layer.get_config()), shape=shape)
    change(path, type(layer).__name__, {"config": wanted})
    assert code_of(path) == "tensor-too-large"


@pytest.mark.parametrize("shape", [[None, 10**6, 10**6, 3], [10**7, 8, 8, 3]])
def test_the_input(shape, tmp_path):
    path = tmp_path / "net.keras"
    save(path, layers.Conv2D(4, 3))
    change(path, "InputLayer", {"config": {"batch_shape": shape}})
    assert code_of(path) == "tensor-too-large"


def test_what_a_fixed_batch_takes_is_not_told_of_one_sample(tmp_path):
    path = tmp_path / "net.keras"
    keras.Sequential([keras.Input((400, 400, 3), 16), layers.Conv2D(64, 3)]).save(path)
    with pytest.raises(InputError, match="batch of 16") as caught:
        load(path)
    assert caught.value.code == "tensor-too-large"


def test_a_model_in_a_model(tmp_path):
    image = keras.Input((8, 8, 3))
    inner = keras.Sequential([keras.Input((8, 8, 3)), layers.UpSampling2D(2000)])
    path = tmp_path / "net.keras"
    keras.Model(image, layers.GlobalMaxPooling2D()(inner(image))).save(path)
    assert code_of(path) == "tensor-too-large"


def test_who_means_it_may_have_it(tmp_path, monkeypatch):
    path = tmp_path / "net.keras"
    save(path, layers.UpSampling2D(300), layers.GlobalMaxPooling2D())
    assert code_of(path) == "tensor-too-large"
    monkeypatch.setenv(VARIABLE, "1GiB")
    assert largest_of(load(path).model) == 2400 * 2400 * 3 * 4


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("strides", [1, 0.001]),
        ("strides", 0),
        ("kernel_size", [3, -3]),
        ("filters", 2.5),
        ("filters", float("inf")),
        ("strides", float("nan")),
    ],
)
def test_windows_and_channels_are_whole_numbers(key, value, tmp_path):
    path = tmp_path / "net.keras"
    save(path, layers.Conv2D(4, 3, padding="same", name="odd"))
    change(path, "Conv2D", {"config": {key: value}})
    with pytest.raises(InputError, match=f"{key} of odd") as caught:
        load(path)
    assert caught.value.code == "bad-configuration"
