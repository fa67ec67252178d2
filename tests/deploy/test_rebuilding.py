"""How split outputs are put together again, in words."""

from __future__ import annotations

import numpy as np
import pytest
from keras import Input, Model, layers, ops

from dsconvert.deploy.exporting.keras_tail import without_tail
from dsconvert.deploy.exporting.rebuilding import keras_step, onnx_step, told_rebuilding


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (lambda x: layers.Concatenate()([x, x]), "Concatenate(a, axis=3)"),
        (lambda x: ops.concatenate([x, x], axis=-2), "Concatenate(a, axis=2)"),
        (lambda x: layers.Reshape((-1, 5))(x), "Reshape(a, shape=(n, -1, 5))"),
        (lambda x: ops.reshape(x, (-1, 5)), "Reshape(a, shape=(-1, 5))"),
        (lambda x: layers.Permute((3, 1, 2))(x), "Transpose(a, axes=(0, 3, 1, 2))"),
        (lambda x: ops.transpose(x, (0, 2, 1, 3)), "Transpose(a, axes=(0, 2, 1, 3))"),
        (lambda x: ops.transpose(x), "Transpose(a, axes=(3, 2, 1, 0))"),
        (lambda x: layers.Rescaling(640.0, name="pixels")(x), "Rescaling 'pixels'(a)"),
    ],
)
def test_keras(made, told):
    tensor = made(Input((4, 4, 5)))
    step = keras_step(tensor._keras_history[0], ["a"], len(tensor.shape))
    assert told_rebuilding({"y": "y"}, lambda _: step, {"a": "a"}) == (f"y = {told}",)


def test_what_is_long_is_not_written_out():
    """x · sigmoid(x), forty times: written out it would have 2⁴⁰ parts."""
    steps = {}
    for i in range(40):
        steps[f"x{i + 1}"] = onnx_step("Mul", "", {}, [f"x{i}", f"s{i}"], None)
        steps[f"s{i}"] = onnx_step("Sigmoid", "", {}, [f"x{i}"], None)
    outputs = {"x40": "far", "x2": "near"}
    assert told_rebuilding(outputs, steps.get, {"x0": "part"}) == (
        "far is what the model's last layers make of them",
        "near = Mul(Mul(part, Sigmoid(part)), Sigmoid(Mul(part, Sigmoid(part))))",
    )


def test_constants_are_not_passed_over():
    joined = onnx_step("Concat", "end", {"axis": 1}, ["a", "anchors"], None)
    told = told_rebuilding({"y": "y"}, {"y": joined}.get, {"a": "boxes"})
    assert told == ("y = Concat(boxes, anchors, axis=1)",)

    x = Input(batch_shape=(8, 4, 4, 5), name="x")
    anchors = np.random.default_rng(1).uniform(0, 640, (8, 4, 4, 2)).astype(np.float32)
    joined = ops.concatenate([layers.ReLU(name="part")(x), anchors], -1)
    model = Model(x, joined)
    samples = np.random.default_rng(0).random((8, 4, 4, 5), dtype=np.float32)
    _, names, tail = without_tail(model, [samples], ["y"])
    assert names == ("part",)
    assert tail.rebuilding == (f"y = Concatenate {joined._keras_history[0].name!r}(part)",)


@pytest.mark.parametrize(
    ("kind", "settings", "shape", "told"),
    [
        ("Concat", {"axis": -1}, None, "Concat(a, axis=-1)"),
        ("Reshape", {}, [0, -1, 9], "Reshape(a, shape=(n, -1, 9))"),
        ("Reshape", {"allowzero": 1}, [0, 9], "Reshape(a, shape=(0, 9))"),
        ("Reshape", {}, None, "Reshape 'end'(a)"),
        ("Reshape", {"shape": [4, 9]}, None, "Reshape(a, shape=(4, 9))"),
        ("Transpose", {"perm": [0, 2, 1]}, None, "Transpose(a, perm=(0, 2, 1))"),
        ("Transpose", {}, None, "Transpose(a)"),
        ("Mul", {}, None, "Mul 'end'(a)"),
    ],
)
def test_onnx(kind, settings, shape, told):
    step = onnx_step(kind, "end", settings, ["a"], shape)
    assert told_rebuilding({"y": "y"}, lambda _: step, {"a": "a"}) == (f"y = {told}",)
