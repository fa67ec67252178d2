"""Odd shapes, types and data: the work is done, or refused in words; never a bug's exit code."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from conv_stacks import conv_stack
from onnx import TensorProto, helper, numpy_helper

from dsconvert.cli import main

RANDOM = np.random.default_rng(0)


def network(
    folder,
    shape=("n", 3, 8, 8),
    kernel=(3, 3),
    dilation=1,
    dtype=np.float32,
    given=TensorProto.FLOAT,
    changed=None,
):
    """Two convolutions and a mean, from images of any type; ``changed`` is done to the weights."""
    pads = [dilation * (size // 2) for size in kernel] * 2
    attributes = {"pads": pads, "dilations": [dilation] * 2}
    weights = {
        "w": RANDOM.normal(0, 0.3, (8, 3, *kernel)),
        "v": RANDOM.normal(0, 0.3, (6, 8, *kernel)),
    }
    if changed is not None:
        changed(weights)
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    nodes = [
        helper.make_node("Cast", ["x"], ["c"], "cast", to=kind),
        helper.make_node("Conv", ["c", "w"], ["a"], "first", **attributes),
        helper.make_node("Relu", ["a"], ["r"], "relu"),
        helper.make_node("Conv", ["r", "v"], ["b"], "second", **attributes),
        helper.make_node("GlobalAveragePool", ["b"], ["g"], "mean"),
        helper.make_node("Flatten", ["g"], ["y"], "flat"),
    ]
    graph = helper.make_graph(
        nodes,
        "odd",
        [helper.make_tensor_value_info("x", given, shape)],
        [helper.make_tensor_value_info("y", kind, [shape[0], 6])],
        [numpy_helper.from_array(array.astype(dtype), name) for name, array in weights.items()],
    )
    path = folder / "odd.onnx"
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path
    )
    return path


def images(count=20, shape=(3, 8, 8)):
    return RANDOM.normal(size=(count, *shape)).astype(np.float32)


def dead_channels(weights):
    """Of eight channels one gives 0, and one is read by nobody."""
    weights["w"][0] = 0
    weights["v"][:, 1] = 0


def all_zero(weights):
    weights["v"][:] = 0


CASES = {
    "one image": ({}, images(1)),
    "eleven images": ({}, images(11)),
    "equal images": ({}, np.repeat(images(1), 20, axis=0)),
    "zero images": ({}, np.zeros((20, 3, 8, 8), np.float32)),
    "a constant channel": ({}, images() * np.float32([1, 0, 1])[:, None, None]),
    "huge images": ({}, images() * np.float32(1e30)),
    "tiny images": ({}, images() * np.float32(1e-30)),
    "1×1 maps": ({"shape": ("n", 3, 1, 1)}, images(shape=(3, 1, 1))),
    "height 1": ({"shape": ("n", 3, 1, 16)}, images(shape=(3, 1, 16))),
    "kernel 7": ({"kernel": (7, 7)}, images()),
    "kernel 31": ({"kernel": (31, 31)}, images(12)),
    "even kernel": ({"kernel": (2, 4)}, images()),
    "dilation 8": ({"dilation": 8}, images()),
    "dead channels": ({"changed": dead_channels}, images()),
    "all weights zero": ({"changed": all_zero}, images()),
    "batch of 7": ({"shape": (7, 3, 8, 8)}, images()),
    "float64 input": ({"given": TensorProto.DOUBLE}, images()),
    "float64 weights": ({"dtype": np.float64, "given": TensorProto.DOUBLE}, images()),
    "uint8 input": (
        {"given": TensorProto.UINT8},
        RANDOM.integers(0, 256, (20, 3, 8, 8), dtype=np.uint8),
    ),
}


COMMANDS = ("inspect", "svd", "data", "float16", "int8", "verify")
_FEW = {
    "kernel 31": ("svd", "data"),
    "dead channels": ("svd", "data"),
    "all weights zero": ("svd", "data"),
}
PAIRS = [
    (name, command)
    for name, (options, _) in CASES.items()
    for command in (COMMANDS if options else COMMANDS[2:])  # the first two see no images
    if command in _FEW.get(name, COMMANDS)
]


@pytest.mark.parametrize(("name", "command"), PAIRS)
def test_odd_numbers(name, command, tmp_path):
    options, data = CASES[name]
    model, npz = network(tmp_path, **options), tmp_path / "images.npz"
    np.savez(npz, x=data)
    out = ["-o", str(tmp_path / "out.onnx")]
    calibration = ["--calibration", str(npz)]
    words = {
        "inspect": ["inspect", str(model)],
        "svd": ["rewrite", str(model), *out],
        "data": ["rewrite", str(model), *out, *calibration, "--structure", "pairs"],
        "float16": ["export", str(model), *out, "--quantize", "float16", *calibration],
        "int8": ["export", str(model), *out, "--quantize", "int8", *calibration],
        "verify": ["verify", str(model), str(model), "--data", str(npz)],
    }[command]
    result = CliRunner().invoke(main, words)
    assert result.exit_code in (0, 1, 2), result.stderr
    assert result.exit_code == 0 or "Error: " in result.stderr
    if name == "float64 weights":  # for which ONNX Runtime has no convolution
        assert result.exit_code == 2
    elif command in ("inspect", "verify"):
        assert result.exit_code == 0, result.stderr


def done(*words):
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize(
    "name", ["equal images", "1×1 maps", "dilation 8", "dead channels", "batch of 7", "uint8 input"]
)
def test_plans(name, tmp_path):
    options, data = CASES[name]
    np.savez(tmp_path / "images.npz", x=data)
    fit = ["--calibration", tmp_path / "images.npz", "--target-macs", "0.9x"]
    done("plan", network(tmp_path, **options), "-o", tmp_path / "plan.json", *fit)


def test_300_convolutions_in_1000_nodes(tmp_path):
    path = conv_stack(tmp_path / "deep.onnx", [3] * 300, channels=8)
    model = onnx.load(path)
    for number in range(700):
        last = model.graph.node[-1].output[0]
        model.graph.node.append(helper.make_node("Relu", [last], [f"r{number}"], f"relu{number}"))
    model.graph.output[0].name = "r699"
    onnx.save(model, path)
    done("rewrite", path, "-o", tmp_path / "out.onnx", "--structure", "pairs")
    counted = Counter(node.op_type for node in onnx.load(tmp_path / "out.onnx").graph.node)
    assert counted["Relu"] == 700
    assert counted["Conv"] >= 600


def test_4096_channels(tmp_path):
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], "wide", pads=[1] * 4),
        helper.make_node("Conv", ["a", "v"], ["y"], "narrow", pads=[1] * 4),
    ]
    weights = {
        "w": RANDOM.normal(size=(4096, 2, 3, 3)).astype(np.float32),
        "v": RANDOM.normal(size=(2, 4096, 3, 3)).astype(np.float32),
    }
    shape = ["n", 2, 4, 4]
    graph = helper.make_graph(
        nodes,
        "wide",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / "wide.onnx")
    done("inspect", tmp_path / "wide.onnx")
    words = ["--include", "narrow", "--include", "wide", "--order", "depthwise-first"]
    done("rewrite", tmp_path / "wide.onnx", "-o", tmp_path / "out.onnx", *words)
    assert len(onnx.load(tmp_path / "out.onnx").graph.node) > len(nodes)


@pytest.mark.parametrize("value", [np.nan, np.inf])
class TestNotFinite:
    """Values that no sum bears: told where they are, before any work."""

    def test_weights_are_told_by_their_layer(self, tmp_path, value):
        def spoil(weights):
            weights["v"][2, 3] = value

        model = network(tmp_path, changed=spoil)
        assert "second" in done("inspect", "-v", model, "--json")
        np.savez(tmp_path / "images.npz", x=images())
        for words in (
            ["rewrite", model, "-o", tmp_path / "out.onnx", "--include", "second"],
            ["plan", model, "-o", tmp_path / "p.json", "--calibration", tmp_path / "images.npz"],
            ["export", model, "-o", tmp_path / "half.onnx", "--quantize", "float16"],
        ):
            result = CliRunner().invoke(main, list(map(str, words)))
            assert result.exit_code == 2, (words[0], result.stdout)
            assert "'second'" in result.stderr or " second " in result.stderr, words[0]
            assert "NaN" in result.stderr, words[0]

    def test_weights_in_a_constant_node(self, tmp_path, value):
        proto = onnx.load(network(tmp_path))
        stored = next(one for one in proto.graph.initializer if one.name == "v")
        spoilt = numpy_helper.to_array(stored).copy()
        spoilt[2, 3] = value
        proto.graph.initializer.remove(stored)
        tensor = numpy_helper.from_array(spoilt, "v")
        proto.graph.node.insert(0, helper.make_node("Constant", [], ["v"], "held", value=tensor))
        onnx.save(proto, tmp_path / "held.onnx")
        words = ["rewrite", tmp_path / "held.onnx", "-o", tmp_path / "out.onnx"]
        result = CliRunner().invoke(main, list(map(str, words)))
        assert result.exit_code == 2
        assert "second" in result.stderr
        assert not (tmp_path / "out.onnx").exists()

    def test_weights_of_keras_layers(self, tmp_path, value):
        keras = pytest.importorskip("keras")
        image = keras.Input((8, 8, 3))
        inner = keras.Sequential([keras.Input((8, 8, 4)), keras.layers.Conv2D(2, 3, name="deep")])
        x = inner(keras.layers.Conv2D(4, 3, padding="same", name="first")(image))
        model = keras.Model(image, keras.layers.GlobalAveragePooling2D()(x))
        sound, path = tmp_path / "sound.keras", tmp_path / "net.keras"
        model.save(sound)
        kernel, bias = model.get_layer(inner.name).get_layer("deep").get_weights()
        kernel[0, 1, 2, 0] = value
        model.get_layer(inner.name).get_layer("deep").set_weights([kernel, bias])
        model.save(path)
        np.savez(tmp_path / "images.npz", x=images(shape=(8, 8, 3)))
        data = ["--data", tmp_path / "images.npz"]
        for words in (
            ["rewrite", path, "-o", tmp_path / "out.keras"],
            ["export", path, "-o", tmp_path / "out.tflite", "--no-verify"],
            ["finetune", path, "--teacher", sound, *data, "-o", tmp_path / "out.keras"],
            ["optimize", path, *data, "-o", tmp_path / "out"],
        ):
            result = CliRunner().invoke(main, list(map(str, words)))
            assert result.exit_code == 2, (words[0], result.stdout)
            assert "deep" in result.stderr, words[0]
            assert "NaN" in result.stderr, words[0]
            assert not any(tmp_path.glob("out*")), words[0]

    def test_data_are_refused(self, tmp_path, value):
        data = images()
        data[7, 1, 2, 3] = value
        np.savez(tmp_path / "images.npz", x=data)
        model = network(tmp_path)
        for words in (
            ["rewrite", model, "-o", tmp_path / "out.onnx", "--calibration"],
            ["export", model, "-o", tmp_path / "o.onnx", "--quantize", "int8", "--calibration"],
            ["verify", model, model, "--data"],
            ["evaluate", model, "--reference", model, "--data"],
        ):
            found = CliRunner().invoke(main, [*map(str, words), str(tmp_path / "images.npz")])
            assert found.exit_code == 2, (words[0], found.stdout)
            assert "NaN or infinity in sample 7 " in found.stderr, words[0]

    def test_data_to_train_on_are_refused(self, tmp_path, value):
        keras = pytest.importorskip("keras")
        image = keras.Input((8, 8, 3))
        path = tmp_path / "net.keras"
        keras.Model(image, keras.layers.GlobalAveragePooling2D()(image)).save(path)
        data = images(shape=(8, 8, 3))
        data[7, 1, 2, 0] = value
        np.savez(tmp_path / "images.npz", x=data)
        words = ["finetune", path, "--teacher", path, "-o", tmp_path / "tuned.keras", "--data"]
        found = CliRunner().invoke(main, [*map(str, words), str(tmp_path / "images.npz")])
        assert found.exit_code == 2, found.stdout
        assert "NaN or infinity in sample 7 " in found.stderr
        assert not (tmp_path / "tuned.keras").exists()
