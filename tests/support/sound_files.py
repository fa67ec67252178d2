"""The sound files that everything damaged is made from: small, one of each format."""

from __future__ import annotations

import json
import os
import shutil
import traceback
from pathlib import Path
from typing import Any

import numpy as np

_EXAMPLE = Path(__file__).parents[2] / "docs" / "example-run" / "report.json"
RECIPE = """model = "{folder}/net.onnx"
seed = 1
[preprocessing]
scale = "1/255"
mean = [0.5, 0.5, 0.5]
[inspect]
samples = 20
[rewrite]
output = "out.onnx"
method = "svd"
pairs = 1
exclude = ["nothing*"]
[verify]
reference = "{folder}/net.onnx"
samples = 4
"""
DEVICES = """[boards.desk]
host = "127.0.0.1"
user = "pi"
port = 9
python = "python3"
folder = "/tmp"
[phones.own]
serial = "123"
"""


def make(folder: Path, *, with_keras: bool) -> None:
    """Make the files that are missing, in children: TensorFlow has threads that no fork survives.

    Args:
        folder: Where; made if need be.
        with_keras: Whether those that need TensorFlow are wanted.
    """
    for name, write in (("onnx", onnx_files), ("keras", keras_files)):
        done = folder / f".{name}"
        if done.exists() or (name == "keras" and not with_keras):
            continue
        folder.mkdir(parents=True, exist_ok=True)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                write(folder)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        if os.waitpid(child, 0)[1]:
            raise RuntimeError(f"the sound files of {name} cannot be made: see above")
        done.touch()


def onnx_files(folder: Path) -> None:
    """net.onnx, kinds.onnx and int8.onnx, and all that is no model."""
    import onnx
    from click.testing import CliRunner
    from onnx import TensorProto, helper, numpy_helper
    from PIL import Image

    from dsconvert.cli import main

    random = np.random.default_rng(0)
    net = str(folder / "net.onnx")
    onnx.save(_network(helper, numpy_helper, TensorProto, random, many=False), net)
    onnx.save(_network(helper, numpy_helper, TensorProto, random, many=True), folder / "kinds.onnx")
    np.savez(
        folder / "images.npz",
        x=random.normal(size=(24, 8, 8, 3)).astype("f4"),
        y=random.integers(0, 5, 24),
    )
    (folder / "pictures").mkdir(exist_ok=True)
    for name in ("a.png", "b.jpg", "c.gif", "d.bmp", "e.tif", "f.webp"):
        Image.fromarray(random.integers(0, 255, (8, 8, 3), np.uint8)).save(
            folder / "pictures" / name
        )
    shutil.copy(_EXAMPLE, folder)
    (folder / "recipe.toml").write_text(RECIPE.format(folder=folder))
    (folder / "devices.toml").write_text(DEVICES)
    data = str(folder / "images.npz")
    for words in (
        ["export", net, "-o", str(folder / "int8.onnx"), "--quantize", "int8"],
        ["plan", net, "-o", str(folder / "plan.json"), "--target-macs", "0.8x"],
    ):
        done = CliRunner().invoke(main, [*words, "--calibration", data])
        assert done.exit_code in (0, 1), done.stderr
    done = CliRunner().invoke(main, ["profile", net, "--runs", "5", "--min-seconds", "0", "--json"])
    json.loads(done.stdout)
    (folder / "run.json").write_text(done.stdout)


def _network(helper: Any, numpy_helper: Any, kinds: Any, random: Any, many: bool) -> Any:
    """Two convolutions and a classifier; ``many`` for more kinds of operators."""
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], "first", pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("Conv", ["r", "v"], ["d"], "second", pads=[1] * 4, strides=[2, 2]),
    ]
    weights = {
        "w": random.normal(0, 0.3, (8, 3, 3, 3)),
        "b": random.normal(0, 0.1, 8),
        "v": random.normal(0, 0.3, (6, 8, 3, 3)),
        "m": random.normal(0, 0.3, (5, 6)),
        "n": random.normal(0, 0.3, 5),
    }
    last = "d"
    if many:
        weights |= {name: random.uniform(0.5, 1, 6) for name in ("s", "o", "u", "q")}
        weights |= {"g": random.normal(0, 0.3, (6, 1, 3, 3)), "t": random.normal(size=(6, 6, 2, 2))}
        nodes += [
            helper.make_node("BatchNormalization", ["d", "s", "o", "u", "q"], ["e"], "norm"),
            helper.make_node("Clip", ["e", "low", "high"], ["f"], "clip"),
            helper.make_node("Conv", ["f", "g"], ["h"], "depthwise", pads=[1] * 4, group=6),
            helper.make_node("Add", ["f", "h"], ["i"], "sum"),
            helper.make_node("ConvTranspose", ["i", "t"], ["j"], "up", strides=[2, 2]),
            helper.make_node("Concat", ["j", "j"], ["k"], "both", axis=1),
            helper.make_node("Slice", ["k", "from", "to", "axes"], ["l"], "half"),
            helper.make_node("MaxPool", ["l"], ["o2"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        ]
        last = "o2"
    nodes += [
        helper.make_node("GlobalAveragePool", [last], ["p"], "mean"),
        helper.make_node("Flatten", ["p"], ["z"], "flat"),
        helper.make_node("Gemm", ["z", "m", "n"], ["a"], "scores", transB=1),
        helper.make_node("Softmax", ["a"], ["y"], "softmax"),
    ]
    stored = [numpy_helper.from_array(np.asarray(a, "f4"), name) for name, a in weights.items()]
    if many:
        stored += [
            numpy_helper.from_array(np.float32(0), "low"),
            numpy_helper.from_array(np.float32(6), "high"),
            *(numpy_helper.from_array(np.int64([n]), name)
              for name, n in (("from", 0), ("to", 6), ("axes", 1))),
        ]  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", kinds.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("y", kinds.FLOAT, ["n", 5])],
        stored,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def keras_files(folder: Path) -> None:
    """net.h5, net.keras, net.tflite and int8.tflite."""
    import keras
    from keras import layers

    import dsconvert as ds

    keras.utils.set_random_seed(0)
    image = x = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(8, 3, padding="same", name="first")(x)
    x = layers.BatchNormalization(name="norm")(x)
    x = branch = layers.ReLU(name="relu")(x)
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="second")(x)
    x = layers.Add(name="sum")([x, branch])
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    model = keras.Model(image, layers.Dense(5, activation="softmax", name="scores")(x))
    model.save(folder / "net.keras")
    model.save(folder / "net.h5")
    ds.export(model, folder / "net.tflite")
    images = np.random.default_rng(0).normal(size=(24, 8, 8, 3)).astype("f4")
    options = ds.ExportOptions(quantize="int8")
    ds.export(model, folder / "int8.tflite", options=options, calibration=images)
