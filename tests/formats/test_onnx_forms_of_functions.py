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


def function_with_a_default():
    """A leaky slope that the function has a default for: ONNX's inliner leaves it out."""
    function = helper.make_function(
        "mine",
        "Leaky",
        ["x", "w"],
        ["y"],
        [
            helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
            helper.make_node("LeakyRelu", ["c"], ["y"]),
        ],
        [helper.make_opsetid("", 18)],
        attribute_protos=[helper.make_attribute("slope", 0.3)],
    )
    told = onnx.AttributeProto(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT)
    function.node[1].attribute.append(told)
    return function


def test_defaults_of_attributes_of_functions_hold_where_a_call_does_not_tell_them(tmp_path):
    onnx.save(model_with(function_with_a_default()), tmp_path / "m.onnx")
    expected = run(tmp_path / "m.onnx")

    imported = ds.import_onnx(tmp_path / "m.onnx").model
    full_rank = ds.RewriteOptions(pairs=9, include=("*",), method="svd")
    ds.rewrite(tmp_path / "m.onnx", options=full_rank, output=tmp_path / "exact.onnx")

    got = imported.predict(X.transpose(0, 2, 3, 1), verbose=0).transpose(0, 3, 1, 2)
    assert np.allclose(got, expected, atol=1e-5)
    assert np.allclose(run(tmp_path / "exact.onnx"), expected, atol=1e-5)


def test_functions_of_an_opset_in_which_operators_took_fewer_types(tmp_path):
    """Mul of opset 13 and of 14: onnx' checker refuses what ONNX Runtime runs."""
    onnx.save(model_with(function_of(13)), tmp_path / "m.onnx")
    ds.inspect(tmp_path / "m.onnx")


def test_a_function_that_nobody_calls_may_hold_what_nobody_knows(tmp_path):
    model = model_with(function_of())
    unknown = [helper.make_node("Unknown", ["x"], ["y"])]
    idle = helper.make_function(
        "mine", "Idle", ["x"], ["y"], unknown, [helper.make_opsetid("", 17)]
    )
    model.functions.append(idle)
    onnx.save(model, tmp_path / "m.onnx")
    ds.inspect(tmp_path / "m.onnx")


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
