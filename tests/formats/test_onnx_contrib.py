"""Operators of com.microsoft in ONNX's own: ONNX Runtime gives the same for both."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dsconvert.deploy.exporting.onnx_prepare import prepared
from dsconvert.deploy.exporting.onnx_source import read_onnx
from dsconvert.formats.onnx.contrib import spelled_out

onnxruntime = pytest.importorskip("onnxruntime")
RNG = np.random.default_rng(0)
X = RNG.normal(0, 1, (2, 3, 5, 5)).astype(np.float32)
WEIGHTS = {
    "w": RNG.normal(0, 0.5, (3, 3, 3, 3)).astype(np.float32),
    "b": RNG.normal(0, 0.5, 3).astype(np.float32),
    "last": RNG.normal(0, 0.5, 5).astype(np.float32),
}


def model_of(kind, *inputs, **given):
    """A convolution, the operator, and a convolution."""
    value = helper.make_tensor_value_info
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node(kind, list(inputs), ["c"], domain="com.microsoft", **given),
        helper.make_node("Conv", ["c", "w", "b"], ["y"], pads=[1, 1, 1, 1]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", TensorProto.FLOAT, ["n", 3, 5, 5])],
        [value("y", TensorProto.FLOAT, ["n", 3, 5, 5])],
        [numpy_helper.from_array(array, name) for name, array in WEIGHTS.items()],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=9)


def run(model, x=X):
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]


CONV = {"pads": [1, 1, 1, 1], "kernel_shape": [3, 3]}


@pytest.mark.parametrize(
    ("kind", "inputs", "given"),
    [
        ("Gelu", ("a",), {}),
        ("QuickGelu", ("a",), {"alpha": 1.5}),
        ("FastGelu", ("a",), {}),
        ("BiasGelu", ("a", "last"), {}),
        ("FusedConv", ("a", "w", "b"), {"activation": "Relu", **CONV}),
        ("FusedConv", ("a", "w", "b", "x"), {"activation": "Relu", **CONV}),
        (
            "FusedConv",
            ("a", "w"),
            {"activation": "LeakyRelu", "activation_params": [0.3], **CONV},
        ),
    ],
)
def test_gives_the_same(kind, inputs, given):
    model = model_of(kind, *inputs, **given)
    spelled = spelled_out(model)
    assert {node.domain for node in spelled.graph.node} == {""}
    assert np.allclose(run(spelled), run(model), atol=1e-5)


@pytest.mark.parametrize("opset", [17, 14])  # there is CastLike from 15 on
def test_numbers_have_the_type_of_what_they_are_combined_with(opset):
    model = model_of("Gelu", "a")
    for tensor in model.graph.initializer:
        tensor.CopyFrom(
            numpy_helper.from_array(np.float16(numpy_helper.to_array(tensor)), tensor.name)
        )
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    model.opset_import[0].version = opset
    spelled = spelled_out(model)
    assert "com.microsoft" not in {node.domain for node in spelled.graph.node}
    assert np.allclose(run(spelled, np.float16(X)), run(model, np.float16(X)), atol=2e-2)


def test_what_is_not_known_stays():
    model = model_of("FusedConv", "a", "w", activation="Clip", activation_params=[0.0, 6.0], **CONV)
    assert spelled_out(model).graph.node[1].op_type == "FusedConv"


def test_before_quantization(tmp_path):
    onnx.save(model_of("Gelu", "a"), tmp_path / "m.onnx")
    path, _ = prepared(read_onnx(tmp_path / "m.onnx"), tmp_path, [X])
    assert all(not node.domain for node in onnx.load(path).graph.node)


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        ("ImageScaler", {"scale": 0.5, "bias": [0.1, -0.2, 0.3]}),
        ("Affine", {"alpha": 2.0, "beta": -0.5}),
        ("Scale", {"scale": 1.5}),
        ("Crop", {"border": [1, 0, 0, 1]}),
        ("Crop", {"border": [1, 1, 0, 0], "scale": [3, 2]}),
        ("ScaledTanh", {"alpha": 1.7, "beta": 0.6}),
        ("ParametricSoftplus", {"alpha": 0.5, "beta": 2.0}),
    ],
)
def test_experimental_operators_of_old_files_are_spelled_out(kind, given, tmp_path):
    """ONNX dropped them, so that it converts no file that holds one to the opset of int8."""
    value = helper.make_tensor_value_info
    nodes = [
        helper.make_node(kind, ["x"], ["a"], **given),
        helper.make_node("Conv", ["a", "w"], ["y"], pads=[1, 1, 1, 1]),
    ]
    weights = [numpy_helper.from_array(WEIGHTS["w"], "w")]
    ends = [value(name, TensorProto.FLOAT, ["n", 3, *sizes]) for name, sizes in
            (("x", [5, 5]), ("y", ["h", "w_"]))]  # fmt: skip
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    imports = [helper.make_opsetid("", 7)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=4)
    spelled = spelled_out(model)
    assert kind not in {node.op_type for node in spelled.graph.node}
    np.testing.assert_allclose(run(spelled), run(model), atol=1e-5)
    onnx.save(model, tmp_path / "m.onnx")
    ready, _ = prepared(read_onnx(tmp_path / "m.onnx"), tmp_path, [X])
    assert onnx.load(ready).opset_import[0].version >= 13
    np.testing.assert_allclose(run(onnx.load(ready)), run(model), atol=1e-5)
