"""Functions in other forms than the model's, and what the tools behind them do not take."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import dsconvert as ds

onnxruntime = pytest.importorskip("onnxruntime")
X = np.random.default_rng(0).normal(0, 1, (4, 3, 6, 6)).astype(np.float32)


def floats(*shape, seed=0):
    return np.random.default_rng(seed).normal(0, 0.3, shape).astype(np.float32)


def model_with(function, opset=18, inputs=("x", "w"), **more):
    """x → a function of it and of weights → a convolution without a bias, written as ''."""
    value = helper.make_tensor_value_info
    nodes = [
        helper.make_node(function.name, list(inputs), ["a"], domain=function.domain),
        helper.make_node("Conv", ["a", "v", ""], ["y"], pads=[1, 1, 1, 1]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", TensorProto.FLOAT, ["n", 3, 6, 6])],
        [value("y", TensorProto.FLOAT, ["n", 2, 6, 6])],
        [
            numpy_helper.from_array(floats(3, 3, 3, 3), "w"),
            numpy_helper.from_array(floats(2, 3, 3, 3), "v"),
        ],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid(function.domain, 1)]
    return helper.make_model(graph, opset_imports=imports, functions=[function], ir_version=9)


def function_of(opset=17):
    """A convolution whose result is halved, by a constant that is no tensor."""
    return helper.make_function(
        "mine",
        "Half",
        ["x", "w", "b"],
        ["y"],
        [
            helper.make_node("Constant", [], ["half"], value_float=0.5),
            helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1]),
            helper.make_node("Mul", ["c", "half"], ["y"]),
        ],
        [helper.make_opsetid("", opset)],
    )


def run(path):
    return onnxruntime.InferenceSession(path).run(None, {"x": X})[0]


@pytest.fixture
def path(tmp_path):
    onnx.save(model_with(function_of()), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


@pytest.mark.parametrize("quantize", ["float16", "dynamic"])
def test_smaller_files_of_functions(quantize, path, tmp_path):
    ds.export(path, tmp_path / "small.onnx", ds.ExportOptions(quantize=quantize))

    expected = run(path)
    error = np.linalg.norm(run(tmp_path / "small.onnx") - expected)
    assert error < {"float16": 0.002, "dynamic": 0.02}[quantize] * np.linalg.norm(expected)


@pytest.mark.parametrize("opset", [14, 17])
def test_functions_of_another_opset_are_imported(opset, tmp_path):
    onnx.save(model_with(function_of(opset)), tmp_path / "m.onnx")

    imported = ds.import_onnx(tmp_path / "m.onnx")

    got = imported.model.predict(X.transpose(0, 2, 3, 1), verbose=0).transpose(0, 3, 1, 2)
    assert np.allclose(got, run(tmp_path / "m.onnx"), atol=1e-5)


def test_branches_that_call_their_weights_alike(tmp_path):
    value = helper.make_tensor_value_info

    def branch(name, seed):
        node = helper.make_node("Conv", ["x", "w"], [name], pads=[1, 1, 1, 1])
        weights = numpy_helper.from_array(floats(3, 3, 3, 3, seed=seed), "w")
        return helper.make_graph(
            [node], name, [], [value(name, TensorProto.FLOAT, None)], [weights]
        )

    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], keepdims=0),
        helper.make_node("Greater", ["mean", "zero"], ["more"]),
        helper.make_node(
            "If", ["more"], ["y"], then_branch=branch("yes", 1), else_branch=branch("no", 2)
        ),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", TensorProto.FLOAT, [1, 3, 6, 6])],
        [value("y", TensorProto.FLOAT, [1, 3, 6, 6]), value("zero", TensorProto.FLOAT, [])],
        [numpy_helper.from_array(np.float32(0), "zero")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, tmp_path / "m.onnx")

    halved = ds.ExportOptions(quantize="float16")
    ds.export(tmp_path / "m.onnx", tmp_path / "half.onnx", halved)

    for sign in (1, -1):
        feed = {"x": sign * np.abs(X[:1])}
        expected, got = (
            onnxruntime.InferenceSession(tmp_path / name).run(None, feed)[0]
            for name in ("m.onnx", "half.onnx")
        )
        assert np.allclose(got, expected, atol=0.005)
