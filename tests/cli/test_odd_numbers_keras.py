"""Odd shapes, types and data of Keras files: the work is done, or refused in words."""

from __future__ import annotations

import json
import sys
import zipfile
from collections import Counter

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from keras import layers

from dsconvert.cli import main

RANDOM = np.random.default_rng(0)


def network(path, shape=(8, 8, 3), kernel=3, dilation=1, batch=None, given="", dtype="float32"):
    """Two convolutions and a mean, from images of any type."""
    x = image = keras.Input(shape, batch, given or dtype)
    if given:
        x = layers.Rescaling(1 / 255)(x)
    window = {"padding": "same", "dilation_rate": dilation, "dtype": dtype}
    x = layers.Conv2D(8, kernel, activation="relu", name="first", **window)(x)
    x = layers.Conv2D(6, kernel, name="second", **window)(x)
    model = keras.Model(image, layers.GlobalAveragePooling2D(dtype=dtype)(x))
    model.save(path)
    return model


def dead_channels(model):
    """Of eight channels one gives 0, and one is read by nobody."""
    kernel, bias = model.get_layer("first").get_weights()
    kernel[..., 0] = 0
    model.get_layer("first").set_weights([kernel, bias])
    kernel, bias = model.get_layer("second").get_weights()
    kernel[:, :, 1] = 0
    model.get_layer("second").set_weights([kernel, bias])


def all_zero(model):
    for layer in model.layers:
        layer.set_weights([0 * weight for weight in layer.get_weights()])


def images(count=20, shape=(8, 8, 3)):
    return RANDOM.normal(size=(count, *shape)).astype(np.float32)


MODELS = {
    "1×1 maps": ({"shape": (1, 1, 3)}, None, images(shape=(1, 1, 3))),
    "height 1": ({"shape": (1, 16, 3)}, None, images(shape=(1, 16, 3))),
    "kernel 31": ({"kernel": 31}, None, images(12)),
    "dilation 8": ({"dilation": 8}, None, images()),
    "dead channels": ({}, dead_channels, images()),
    "all weights zero": ({}, all_zero, images()),
    "batch of 7": ({"batch": 7}, None, images()),
    "float64": ({"dtype": "float64"}, None, images().astype(np.float64)),
    "float64 input": ({"given": "float64"}, None, images().astype(np.float64)),
    "uint8 input": (
        {"given": "uint8"},
        None,
        RANDOM.integers(0, 256, (20, 8, 8, 3), dtype=np.uint8),
    ),
}
DATA = {
    "one image": images(1),
    "equal images": np.repeat(images(1), 20, axis=0),
    "zero images": np.zeros((20, 8, 8, 3), np.float32),
    "a constant channel": images() * np.float32([1, 0, 1]),
    "huge images": images() * np.float32(1e30),
    "tiny images": images() * np.float32(1e-30),
}
REFUSED = {
    ("one image", "data"),  # ten are needed
    ("huge images", "data"),  # sums of products are infinite
}


def words(command, folder):
    model, data = str(folder / "net.keras"), ["--calibration", str(folder / "images.npz")]

    def out(suffix):
        return ["-o", str(folder / f"out.{suffix}")]

    return {
        "svd": ["rewrite", model, *out("keras")],
        "data": ["rewrite", model, *out("keras"), *data, "--structure", "pairs", "--refine", "0"],
        "tflite": ["export", model, *out("tflite")],
        "onnx": ["export", model, *out("onnx")],
        "int8": ["export", model, *out("tflite"), "--quantize", "int8", *data],
    }[command]


def ends_well(name, command, folder):
    result = CliRunner().invoke(main, words(command, folder))
    if (name, command) in REFUSED:
        assert result.exit_code == 2, result.stdout
        assert "Error: " in result.stderr
        assert not list(folder.glob("out.*"))
    else:
        assert result.exit_code == 0, result.stderr


@pytest.mark.parametrize("command", ["svd", "data", "tflite", "onnx"])
@pytest.mark.parametrize("name", MODELS)
def test_odd_networks(name, command, tmp_path):
    options, change, data = MODELS[name]
    model = network(tmp_path / "net.keras", **options)
    if change is not None:
        change(model)
        model.save(tmp_path / "net.keras")
    np.savez(tmp_path / "images.npz", x=data)
    ends_well(name, command, tmp_path)


INT8 = ("one image", "equal images", "a constant channel")  # zeros: test_zero_ranges


@pytest.mark.parametrize(
    ("name", "command"), [*((one, "data") for one in DATA), *((one, "int8") for one in INT8)]
)
def test_odd_images(name, command, tmp_path):
    network(tmp_path / "net.keras")
    np.savez(tmp_path / "images.npz", x=DATA[name])
    ends_well(name, command, tmp_path)


def done(*words):
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == 0, result.stderr


def test_4096_channels(tmp_path):
    image = keras.Input((4, 4, 2))
    x = layers.Conv2D(4096, 3, padding="same", name="wide")(image)
    x = layers.Conv2D(2, 3, padding="same", name="narrow")(x)
    keras.Model(image, x).save(tmp_path / "wide.keras")
    insisted = ["--include", "narrow", "--include", "wide", "--order", "depthwise-first"]
    done("rewrite", tmp_path / "wide.keras", "-o", tmp_path / "out.keras", *insisted)
    found = keras.models.load_model(tmp_path / "out.keras")
    assert sum(isinstance(layer, layers.DepthwiseConv2D) for layer in found.layers) == 2


@pytest.fixture
def deep_stack():
    """Room to make a deep network, which is taken back: what reads it has to find its own."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(40_000)
    yield lambda: sys.setrecursionlimit(before)
    sys.setrecursionlimit(before)


@pytest.mark.slow
def test_300_convolutions_in_a_chain_of_1000_layers(tmp_path, deep_stack):
    x = image = keras.Input((4, 4, 2))
    for number in range(300):  # few are worth a rewrite, since each takes a while
        x = layers.Conv2D(2 if number < 295 else 8, 3, padding="same", use_bias=False)(x)
    for _ in range(699):
        x = layers.ReLU()(x)
    keras.Model(image, x).save(tmp_path / "deep.keras")
    deep_stack()
    pairs = ["--structure", "pairs"]
    done("rewrite", tmp_path / "deep.keras", "-o", tmp_path / "out.keras", *pairs)
    with zipfile.ZipFile(tmp_path / "out.keras") as archive:
        found = json.loads(archive.read("config.json"))["config"]["layers"]
    counted = Counter(layer["class_name"] for layer in found)
    assert counted["ReLU"] == 699
    assert counted["DepthwiseConv2D"] == 4
