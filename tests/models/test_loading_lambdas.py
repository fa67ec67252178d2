"""Bytecode in model files: read as data, never run without being allowed to."""

from __future__ import annotations

import base64
import json
import marshal
import types
import zipfile

import keras
import numpy as np
import pytest

from dsconvert.base.errors import InputError
from dsconvert.models.loading import load
from dsconvert.models.loading.affine import read_affine
from dsconvert.models.loading.lambdas import affine_lambdas
from dsconvert.models.loading.marshal_data import NotReadable, read_code

# marshal.dumps((lambda x: (x - 128.0) / 64).__code__) by each Python.
NORMALIZE = {
    "2.7": (
        "YwEAAAABAAAAAgAAAEMAAABzDAAAAHwAAGQBABhkAgAVUygDAAAATmcAAAAAAABgQGlAAAAAKAAAAAAoAQAA"
        "AHQBAAAAeCgAAAAAKAAAAABzEwAAAC90bXAvZ2VuX21hcnNoYWwucHl0CAAAADxsYW1iZGE+BgAAAHQAAAAA"
    ),
    "3.6": (
        "4wEAAAAAAAAAAQAAAAIAAABDAAAAcwwAAAB8AGQBGABkAhsAUwApA07nAAAAAAAAYEDpQAAAAKkAKQHaAXhy"
        "AwAAAHIDAAAA+hMvdG1wL2dlbl9tYXJzaGFsLnB52gg8bGFtYmRhPgYAAABzAAAAAA=="
    ),
    "3.8": (
        "4wEAAAAAAAAAAAAAAAEAAAACAAAAQwAAAHMMAAAAfABkARgAZAIbAFMAKQNO5wAAAAAAAGBA6UAAAACpAKkB"
        "2gF4cgMAAAByAwAAAPoTL3RtcC9nZW5fbWFyc2hhbC5wedoIPGxhbWJkYT4GAAAA8wAAAAA="
    ),
    "3.10": (
        "4wEAAAAAAAAAAAAAAAEAAAACAAAAQwAAAHMMAAAAfABkARgAZAIbAFMAKQNO5wAAAAAAAGBA6UAAAACpAKkB"
        "2gF4cgMAAAByAwAAAPoTL3RtcC9nZW5fbWFyc2hhbC5wedoIPGxhbWJkYT4GAAAA8wIAAAAMAA=="
    ),
    "3.11": (
        "4wEAAAAAAAAAAAAAAAIAAAADAAAA8xIAAACXAHwAZAF6CgAAZAJ6CwAAUwApA07nAAAAAAAAYEDpQAAAAKkA"
        "qQHaAXhzAQAAACD6Ey90bXAvZ2VuX21hcnNoYWwucHn6CDxsYW1iZGE+cggAAAAGAAAAcw4AAACAAJABkCSR"
        "BpgCiXuAAPMAAAAA"
    ),
    "3.12": (
        "4wEAAAAAAAAAAAAAAAIAAAADAAAA8xIAAACXAHwAZAF6CgAAZAJ6CwAAUwApA07nAAAAAAAAYEDpQAAAAKkA"
        "qQHaAXhzAQAAACD6Ey90bXAvZ2VuX21hcnNoYWwucHn6CDxsYW1iZGE+cggAAAAGAAAAcw4AAACAAJABkCSR"
        "BpgCiXuAAPMAAAAA"
    ),
    "3.13": (
        "4wEAAAAAAAAAAAAAAAIAAAADAAAA8xIAAACVAFUAUwEtCgAAUwItCwAAJAApA07nAAAAAAAAYEDpQAAAAKkA"
        "qQHaAXhzAQAAACDaEy90bXAvZ2VuX21hcnNoYWwucHnaCDxsYW1iZGE+cggAAAAGAAAAcwwAAACAAJABkCSR"
        "BpgCinvzAAAAAA=="
    ),
}
# The same of x * x and abs(x), by the oldest, the newest and one between.
NOT_AFFINE = {
    "2.7 whole division": (  # x * (7 / 2), which is 3 x
        "YwEAAAABAAAAAwAAAEMAAABzDAAAAHwAAGQBAGQCABUUUygDAAAATmkHAAAAaQIAAAAoAAAAACgBAAAAdAEA"
        "AAB4KAAAAAAoAAAAAHMIAAAAPHN0cmluZz50CAAAADxsYW1iZGE+AgAAAHQAAAAA"
    ),
    "2.7 square": (
        "YwEAAAABAAAAAgAAAEMAAABzCAAAAHwAAHwAABRTKAEAAABOKAAAAAAoAQAAAHQBAAAAeCgAAAAAKAAAAABz"
        "EwAAAC90bXAvZ2VuX21hcnNoYWwucHl0CAAAADxsYW1iZGE+CgAAAHQAAAAA"
    ),
    "2.7 call": (
        "YwEAAAABAAAAAgAAAEMAAABzCgAAAHQAAHwAAIMBAFMoAQAAAE4oAQAAAHQDAAAAYWJzKAEAAAB0AQAAAHgo"
        "AAAAACgAAAAAcxMAAAAvdG1wL2dlbl9tYXJzaGFsLnB5dAgAAAA8bGFtYmRhPg0AAAB0AAAAAA=="
    ),
    "3.6 square": (
        "4wEAAAAAAAAAAQAAAAIAAABDAAAAcwgAAAB8AHwAFABTACkBTqkAKQHaAXhyAQAAAHIBAAAA+hMvdG1wL2dl"
        "bl9tYXJzaGFsLnB52gg8bGFtYmRhPgoAAABzAAAAAA=="
    ),
    "3.6 call": (
        "4wEAAAAAAAAAAQAAAAIAAABDAAAAcwgAAAB0AHwAgwFTACkBTikB2gNhYnMpAdoBeKkAcgMAAAD6Ey90bXAv"
        "Z2VuX21hcnNoYWwucHnaCDxsYW1iZGE+DQAAAHMAAAAA"
    ),
    "3.13 square": (
        "4wEAAAAAAAAAAAAAAAIAAAADAAAA8woAAACVAFgALQUAACQAqQFOqQCpAdoBeHMBAAAAINoTL3RtcC9nZW5f"
        "bWFyc2hhbC5wedoIPGxhbWJkYT5yBwAAAAoAAABzBgAAAIAAiGGKY/MAAAAA"
    ),
    "3.13 call": (
        "4wEAAAAAAAAAAAAAAAMAAAADAAAA8xgAAACVAFsBAAAAAAAAAABVADUBAAAAAAAAJACpAU4pAdoDYWJzqQHa"
        "AXhzAQAAACDaEy90bXAvZ2VuX21hcnNoYWwucHnaCDxsYW1iZGE+cgcAAAANAAAAcwgAAACAAJQDkEGUBvMA"
        "AAAA"
    ),
}
KERAS_1 = (  # lambda x: x / 127.5 - 1.0, Python 3.5, one character for each byte
    "\xe3\x01\0\0\0\0\0\0\0\x01\0\0\0\x02\0\0\0S\0\0\0s\x0c\0\0\0|\0\0d\x01\0\x1bd\x02\0\x18S)\x03N"
    "\xe7\0\0\0\0\0\xe0_@\xe7\0\0\0\0\0\0\xf0?\xa9\0)\x01\xda\x01xr\x03\0\0\0r\x03\0\0\0"
    '\xfa\x08model.py\xda\x08<lambda>"\0\0\0s\0\0\0\0'
)


# Keras' own conversion of variables to numpy, on saving.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def lambda_layer(text: str, **config: object) -> dict:
    function = {"function": [text, None, None], "name": "normalize", "arguments": {}}
    return {"class_name": "Lambda", "config": function | config}


def dumped(function: types.FunctionType) -> bytes:
    return marshal.dumps(function.__code__)


@pytest.mark.parametrize("python", NORMALIZE)
def test_normalization_is_read_from_the_bytecode_of_every_python(python):
    affine = read_affine(base64.b64decode(NORMALIZE[python]))
    assert affine is not None
    assert (affine.scale, affine.offset) == (1 / 64, -2.0)
    assert affine.text == "(x - 128.0) / 64"


@pytest.mark.parametrize("case", NOT_AFFINE)
def test_other_bytecode_of_other_pythons_is_not_affine(case):
    data = base64.b64decode(NOT_AFFINE[case])
    assert read_code(data).fields["argcount"] == 1
    assert read_affine(data) is None


@pytest.mark.parametrize(
    ("function", "scale", "offset", "text"),
    [
        (lambda x: x, 1.0, 0.0, "x"),
        (lambda x: x / 127.5 - 1.0, 1 / 127.5, -1.0, "x / 127.5 - 1.0"),
        (lambda x: 1.0 - x, -1.0, 1.0, "1.0 - x"),
        (lambda x: -x * 2 + 1, -2.0, 1.0, "(-x) * 2 + 1"),
        (lambda x: 3 * (x + 2) - x, 2.0, 6.0, "3 * (x + 2) - x"),
        (lambda x: 1 - (2 - x), 1.0, -1.0, "1 - (2 - x)"),
    ],
)
def test_affine_functions_are_followed(function, scale, offset, text):
    affine = read_affine(dumped(function))
    assert (affine.scale, affine.offset, affine.text) == (scale, offset, text)
    assert eval(text, {"x": 0.3}) == pytest.approx(function(0.3), rel=1e-12)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x * x,
        lambda x: (x + 1) * (x + 2),
        lambda x: 1.0 / x,
        lambda x: 1.0 / (x + 2),
        lambda x: x / 0.0,
        lambda x: 3.0,
        lambda x: x - x,
        lambda x: x * 1e308 * 10,
        lambda x: abs(x),
        lambda x: x**2,
        lambda x: x[..., ::-1],
        lambda x: x + True,
        lambda x: x + 1j,
        lambda x: x if x else 1.0,
        lambda x, y: x - y,
        lambda x, a=2.0: x * a,
        lambda *x: x,
        lambda x, *, k=1: x + k,
    ],
)
def test_everything_else_is_not_affine(function):
    assert read_affine(dumped(function)) is None


def test_a_closure_is_not_affine():
    scale = 2.0
    assert read_affine(dumped(lambda x: x * scale)) is None


@pytest.mark.parametrize("seed", range(3))
def test_damaged_bytes_never_raise_anything_but_not_readable(seed):
    rng = np.random.default_rng(seed)
    whole = dumped(lambda x: x / 127.5 - 1.0)
    for _ in range(300):
        data = bytearray(whole[: rng.integers(1, len(whole) + 1)])
        data[rng.integers(len(data))] = rng.integers(256)
        read_affine(bytes(data))
    for data in (whole[:-1], whole + b"N"):
        with pytest.raises(NotReadable):
            read_code(data)


@pytest.mark.parametrize(
    ("function", "held"),
    [
        (lambda x: x[..., ::-1], ...),
        (lambda x: x * 1_180_591_620_717_411_303_424 - 10_000_000_000, 2**70),
        (lambda x: x * 3j, 3j),
        (lambda x: 1 if x in {1, 2} else 0, None),
    ],
    ids=["dots", "long", "complex", "set"],
)
def test_constants_of_every_kind_are_read(function, held):
    assert held in (*read_code(dumped(function)).fields["consts"], None)


def test_channels_that_are_turned_around_load_with_trust(tmp_path):
    """``x[..., ::-1]``, from RGB to BGR: the dots were no value that the reader knew."""
    turned = keras.layers.Lambda(lambda x: x[..., ::-1])
    keras.Sequential([keras.Input((2, 2, 3)), turned]).save(tmp_path / "m.keras")
    image = np.arange(12, dtype=np.float32).reshape(1, 2, 2, 3)

    model = load(tmp_path / "m.keras", trust=True).model

    np.testing.assert_array_equal(model.predict(image, verbose=0), image[..., ::-1])


def test_deep_nesting_is_refused_before_python_runs_out_of_stack():
    with pytest.raises(NotReadable):
        read_code(b")\x01" * 100_000 + b"N")


def test_a_keras_1_lambda_becomes_a_rescaling_of_the_same_name():
    layer = lambda_layer(KERAS_1, batch_input_shape=[None, 4, 4, 3], output_shape=None)
    repaired, sentence = affine_lambdas(layer)
    assert repaired["class_name"] == "Rescaling"
    assert repaired["config"] == {
        "name": "normalize",
        "batch_input_shape": [None, 4, 4, 3],
        "scale": 1 / 127.5,
        "offset": -1.0,
    }
    assert sentence == (
        "read Lambda 'normalize' as x / 127.5 - 1.0: "
        "Rescaling(scale=0.00784313725, offset=-1), without running it"
    )
    assert layer["class_name"] == "Lambda"  # the configuration given is left alone


def test_a_lambda_with_arguments_of_its_own_is_not_replaced():
    layer = lambda_layer(NORMALIZE["3.11"], arguments={"a": 2})
    assert affine_lambdas(layer) == (layer, None)


@pytest.fixture
def files(tmp_path):
    """Saves a model with one Lambda layer, in both formats."""

    def save(function) -> list:
        layers = [keras.Input((4, 4, 3)), keras.layers.Lambda(function, name="mine")]
        model = keras.Sequential([*layers, keras.layers.Conv2D(2, 3)])
        paths = [tmp_path / "model.h5", tmp_path / "model.keras"]
        for path in paths:
            model.save(path)
        return paths

    return save


def test_an_affine_lambda_loads_without_building_a_code_object(files, monkeypatch):
    def function(x):
        return x / 127.5 - 1.0

    function.__name__ = "<lambda>"  # so that Keras stores its bytecode
    paths, code, loads = files(function), dumped(function), marshal.loads

    def guarded(data):
        assert bytes(data) != code
        return loads(data)

    monkeypatch.setattr(marshal, "loads", guarded)
    for path in paths:
        model = load(path).model
        assert type(model.get_layer("mine")) is keras.layers.Rescaling
        x = np.linspace(0, 255, 48, dtype=np.float32).reshape(1, 4, 4, 3)
        np.testing.assert_allclose(model.get_layer("mine")(x), x / 127.5 - 1, atol=2e-7)


def test_code_runs_with_trust_only(files, tmp_path):
    sentinel = tmp_path / "ran"
    code = f"lambda x: (__import__('pathlib').Path({str(sentinel)!r}).touch(), x * x)[1]"
    paths = files(eval(code))
    for path in paths:
        sentinel.unlink(missing_ok=True)
        with pytest.raises(InputError, match=r"mine.*would run code") as refusal:
            load(path)
        assert "--trust" in refusal.value.words.hint
        assert not sentinel.exists()
        model = load(path, trust=True).model
        assert sentinel.exists()
        x = np.full((1, 4, 4, 3), 3, np.float32)
        np.testing.assert_array_equal(model.get_layer("mine")(x), x * x)


def test_bytecode_of_another_python_is_refused_even_with_trust(files, tmp_path):
    path = files(lambda x: x * x)[1]
    other = tmp_path / "other.keras"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(other, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "config.json":
                config = json.loads(data)
                layer = config["config"]["layers"][1]
                layer["config"]["function"]["config"]["code"] = NOT_AFFINE["3.6 square"]
                data = json.dumps(config)
            new.writestr(name, data)
    for trust in (False, True):
        with pytest.raises(InputError, match=r"mine.*another Python version") as refusal:
            load(other, trust=trust)
        assert "--trust" not in refusal.value.words.hint
