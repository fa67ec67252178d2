"""Small ONNX models on disk, and commands run on them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from commands import call
from onnx import helper, numpy_helper

FIT = "--data data.npz --scale 1/255"
FLOAT = onnx.TensorProto.FLOAT


def conv(name: str, source: str, weights: dict, shape: tuple, rng, **attributes) -> Any:
    """A Conv of these weights; the initialisers are added."""
    fan_in = np.prod(shape[1:])
    weights[f"{name}.w"] = (rng.normal(size=shape) / np.sqrt(fan_in / 2)).astype(np.float32)
    weights[f"{name}.b"] = rng.normal(size=shape[0], scale=0.1).astype(np.float32)
    inputs = [source, f"{name}.w", f"{name}.b"]
    return helper.make_node("Conv", inputs, [f"{name}_out"], name, **attributes)


def model_of(nodes, weights, given, result, **more) -> onnx.ModelProto:
    """A model with one input and one output, each a (name, shape)."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(given[0], FLOAT, given[1])],
        [helper.make_tensor_value_info(result[0], FLOAT, result[1])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9, **more
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def classifier(batch: int | str = "N", given: str = "image", result: str = "probs"):
    """Three convolutions on 12×12 RGB images, channels first; one has a BatchNorm behind it."""
    rng, weights = np.random.default_rng(3), {}
    node = helper.make_node
    nodes = [
        conv("stem", given, weights, (8, 3, 3, 3), rng),
        node("Relu", ["stem_out"], ["stem_act"], "stem_relu"),
        conv("conv1", "stem_act", weights, (16, 8, 3, 3), rng),
        node("BatchNormalization", ["conv1_out", "g", "o", "m", "v"], ["normed"], "norm"),
        node("Relu", ["normed"], ["conv1_act"], "conv1_relu"),
        conv("conv2", "conv1_act", weights, (16, 16, 3, 3), rng, pads=[1] * 4, strides=[2, 2]),
        node("Relu", ["conv2_out"], ["conv2_act"], "conv2_relu"),
        node("GlobalAveragePool", ["conv2_act"], ["pooled"], "pool"),
        node("Flatten", ["pooled"], ["flat"], "flatten"),
        node("Gemm", ["flat", "dense.w", "dense.b"], ["logits"], "dense"),
        node("Softmax", ["logits"], [result], "softmax", axis=1),
    ]
    weights |= {
        "g": rng.uniform(0.5, 1.5, 16).astype(np.float32),
        "o": rng.normal(size=16, scale=0.1).astype(np.float32),
        "m": rng.normal(size=16, scale=0.1).astype(np.float32),
        "v": rng.uniform(0.5, 1.5, 16).astype(np.float32),
        "dense.w": rng.normal(size=(16, 5)).astype(np.float32) * 3,
        "dense.b": np.zeros(5, np.float32),
    }
    ends = (given, [batch, 3, 12, 12]), (result, [batch, 5])
    # No class is to win everywhere: move the mean of the logits to zero.
    trial = session(model_of(nodes, weights, *ends).SerializeToString())
    logits = [np.log(trial.run(None, {given: x[None]})[0][0]) for x in channels_first(pictures())]
    weights["dense.b"] = -np.mean(logits, axis=0)
    return model_of(nodes, weights, *ends)


def pictures() -> np.ndarray:
    """Images (n, 12, 12, 3) of coarse squares: the network's mean over pixels tells them apart."""
    coarse = np.random.default_rng(0).integers(0, 256, (96, 3, 3, 3))
    return np.kron(coarse, np.ones((1, 4, 4, 1))).astype(np.uint8)


def channels_first(images: np.ndarray) -> np.ndarray:
    """Images of 0…255 as the models take them."""
    return (images.transpose(0, 3, 1, 2) / 255).astype(np.float32)


def session(model: bytes | str) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])


def filter_of_images(channels: int = 3) -> onnx.ModelProto:
    """12×12 images in, images of as many channels out, both channels first."""
    rng, weights = np.random.default_rng(4), {}
    nodes = [
        conv("wide", "image", weights, (8, channels, 3, 3), rng, pads=[1] * 4),
        helper.make_node("Relu", ["wide_out"], ["wide_act"], "wide_relu"),
        conv("narrow", "wide_act", weights, (channels, 8, 3, 3), rng, pads=[1] * 4),
    ]
    shape = ["N", channels, 12, 12]
    return model_of(nodes, weights, ("image", shape), ("narrow_out", shape))


def filled(place: Path) -> Path:
    """Write ONNX models, one rewritten, one drawn in Keras, and data in both layouts."""
    onnx.save(classifier(), place / "model.onnx")
    onnx.save(classifier(batch=1), place / "fixed.onnx")
    onnx.save(classifier(given="im/age:0", result="class/probs:0"), place / "odd.onnx")
    onnx.save(filter_of_images(), place / "filter.onnx")
    (place / "apart").mkdir()
    onnx.save(
        classifier(),
        place / "apart" / "large.onnx",
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=16,
    )
    x = pictures()
    y = run(place / "model.onnx", x).argmax(axis=1)
    np.savez(place / "data.npz", x=x, y=y)
    np.savez(place / "first.npz", x=x.transpose(0, 3, 1, 2), y=y)
    np.savez(place / "wide.npz", x=np.zeros((4, 20, 20, 3)))
    for command in (
        "rewrite model.onnx -o small.onnx --method svd",
        "rewrite fixed.onnx -o small_fixed.onnx --method svd",
        "import model.onnx -o model.keras",
        "import filter.onnx -o filter.keras",
    ):
        result = call(command, place)
        assert result.exit_code == 0, result.stderr
    return place


def run(path: Path, images: np.ndarray) -> np.ndarray:
    """The first output in ONNX Runtime for images (n, H, W, C) in 0…255."""
    opened, x = session(str(path)), channels_first(images)
    (given,) = opened.get_inputs()
    if given.shape[0] == 1:
        return np.concatenate([opened.run(None, {given.name: one[None]})[0] for one in x])
    return opened.run(None, {given.name: x})[0]


def done(arguments: str, folder: Path) -> Any:
    """The JSON that a command prints."""
    result = call(f"{arguments} --json", folder)
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def refused(
    arguments: str, folder: Path, code: int, *parts: str, left: tuple[str, ...] = ()
) -> None:
    before = {path.name for path in folder.iterdir()}
    result = call(arguments, folder)
    assert isinstance(result.exception, SystemExit), result.output
    assert result.exit_code == code, result.stderr
    assert result.stdout == ""
    for part in parts:
        assert part in result.stderr
    assert {path.name for path in folder.iterdir()} == before | set(left)


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def stored(folder: Path) -> np.ndarray:
    with np.load(folder / "data.npz") as file:
        return file["x"]


def names(path: Path) -> dict[str, list]:
    """What has to stay as it is when weights are written back."""
    graph = onnx.load(path).graph
    return {
        "nodes": [(node.name, node.op_type, list(node.input)) for node in graph.node],
        "inputs": [value.SerializeToString() for value in graph.input],
        "outputs": [value.SerializeToString() for value in graph.output],
        "weights": [(tensor.name, list(tensor.dims)) for tensor in graph.initializer],
    }
