"""Operators of com.microsoft in ONNX's own: ONNX Runtime gives the same for both."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_native import Net, assert_same_outputs, images, kinds

import dsconvert as ds
from dsconvert.deploy.exporting.onnx_prepare import prepared
from dsconvert.deploy.exporting.onnx_source import read_onnx
from dsconvert.formats.onnx.contrib import spelled_out
from dsconvert.formats.onnx.open import open_onnx
from dsconvert.formats.onnx.shapes import inferred

onnxruntime = pytest.importorskip("onnxruntime")
RNG = np.random.default_rng(0)
X = RNG.normal(0, 1, (2, 3, 5, 5)).astype(np.float32)
WEIGHTS = {
    "w": RNG.normal(0, 0.5, (3, 3, 3, 3)).astype(np.float32),
    "b": RNG.normal(0, 0.5, 3).astype(np.float32),
    "last": RNG.normal(0, 0.5, 5).astype(np.float32),
    "other": RNG.normal(0, 0.5, 5).astype(np.float32),
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
        (
            "FusedConv",
            ("a", "w"),
            {"activation": "Clip", "activation_params": [0.0, 0.1], **CONV},
        ),
        ("FusedMatMul", ("a", "a"), {"transB": 1, "alpha": 0.3}),
        ("FusedMatMul", ("a", "x"), {"transA": 1}),
    ],
)
@pytest.mark.parametrize("opset", [17, 14, 18, 10])
def test_gives_the_same(kind, inputs, given, opset):
    model = model_of(kind, *inputs, **given)
    model.opset_import[0].version = opset
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


@pytest.mark.parametrize(
    "given", [{"activation": "Relu"}, {"activation": "LeakyRelu", "activation_alpha": 0.3}]
)
def test_a_dense_layer_with_its_activation(given):
    net = Net()
    net.constant("w", (7, 6))
    net.constant("b", (7,))
    net.node("FusedGemm", "x w b", "y", domain="com.microsoft", transB=1, **given)
    model = net.model(inputs={"x": ("n", 6)}, opset={"": 17, "com.microsoft": 1})
    spelled = spelled_out(model)
    assert {node.domain for node in spelled.graph.node} == {""}
    assert_same_outputs(model, spelled, images(3, 6))


@pytest.mark.parametrize("opset", [13, 17, 18])
@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("SkipLayerNormalization", ""),
        ("SkipLayerNormalization", " shift"),
        ("SkipLayerNormalization", " shift bias"),
        ("SkipSimplifiedLayerNormalization", ""),
        ("SkipSimplifiedLayerNormalization", " bias"),
    ],
)
def test_a_norm_of_a_sum_that_others_read_too(kind, more, opset):
    net = Net()
    for name in ("scale", "shift", "bias"):
        net.constant(name, (5,))
    net.node("Neg", "x", "skip")
    net.node("Relu", "skip", "r")
    made = ["n", "", "", "s"]
    net.node(kind, f"x r scale{more}", made, domain="com.microsoft", epsilon=1e-3)
    net.node("Mul", "n s", "y")
    model = net.model(inputs={"x": ("n", 3, 5)}, opset={"": opset, "com.microsoft": 1})
    spelled = spelled_out(model)
    assert {node.domain for node in spelled.graph.node} == {""}
    assert_same_outputs(model, spelled, images(2, 3, 5))


def test_statistics_that_somebody_reads_stay():
    net = Net()
    net.constant("scale", (5,))
    net.node("SkipLayerNormalization", "x x scale", ["y", "m"], domain="com.microsoft")
    model = net.model("y", inputs={"x": ("n", 3, 5)}, opset={"": 17, "com.microsoft": 1})
    assert kinds(spelled_out(model)) == ["SkipLayerNormalization"]


@pytest.mark.parametrize(
    ("kind", "opset"),
    [
        ("LayerNormalization", 11),
        ("LayerNormalization", 16),
        ("SimplifiedLayerNormalization", 13),
        ("SimplifiedLayerNormalization", 18),
    ],
)
def test_norms_that_onnx_does_not_define_are_read(kind, opset, tmp_path):
    """ONNX Runtime's optimiser writes them under ONNX's own name, whatever the opset."""
    net = Net()
    net.constant("scale", (10,))
    net.constant("shift", (10,))
    net.conv("x", "a")
    net.node(kind, "a scale" + " shift" * (kind[0] == "L"), "n", axis=-1, epsilon=1e-4)
    net.conv("n", "y", (8, 4), size=(1, 1))
    model = net.model(inputs={"x": ("n", 6, 9, 12)}, opset=opset)
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", 1, ["n", 4, 7, 10]))
    onnx.save(model, tmp_path / "m.onnx")
    file = open_onnx(tmp_path / "m.onnx")
    assert any("spelled out" in repair for repair in file.repairs)
    assert_same_outputs(model, file.model, images(2, 6, 9, 12))


def test_a_norm_of_groups_of_opset_18(tmp_path):
    net = Net()
    net.constant("scale", (2,))
    net.constant("shift", (2,))
    net.conv("x", "a")
    net.node("GroupNormalization", "a scale shift", "n", num_groups=2, epsilon=1e-3)
    net.conv("n", "y", (8, 4), size=(1, 1))
    model = net.model(opset=18)
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", 1, ["n", 4, 7, 8]))
    onnx.save(model, tmp_path / "m.onnx")
    file = open_onnx(tmp_path / "m.onnx")
    assert "GroupNormalization" not in kinds(file.model)
    assert_same_outputs(model, file.model, images(2, 6, 9, 10))


def test_a_norm_that_onnx_defines_stays(tmp_path):
    net = Net()
    net.constant("scale", (10,))
    net.node("LayerNormalization", "x scale", "y")
    onnx.save(net.model(), tmp_path / "m.onnx")
    file = open_onnx(tmp_path / "m.onnx")
    assert not file.repairs
    assert kinds(file.model) == ["LayerNormalization"]


def test_what_is_not_known_stays():
    model = model_of("FusedConv", "a", "w", activation="Elu", **CONV)
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
    assert inferred(model, None, [X.shape])["y"][0] == run(model).shape
    spelled = spelled_out(model)
    assert kind not in {node.op_type for node in spelled.graph.node}
    np.testing.assert_allclose(run(spelled), run(model), atol=1e-5)
    onnx.save(model, tmp_path / "m.onnx")
    ready, _ = prepared(read_onnx(tmp_path / "m.onnx"), tmp_path, [X])
    assert onnx.load(ready).opset_import[0].version >= 13
    np.testing.assert_allclose(run(onnx.load(ready)), run(model), atol=1e-5)


def test_fused_convolutions_stand_apart_in_a_file(tmp_path):
    """As they must to be rewritten; ONNX Runtime fuses them again."""
    net = Net()
    net.conv("x", "a", (3, 4), pads=[1, 1, 1, 1])
    net.node("Relu", "a", "r")
    net.conv("r", "b", (4, 4), pads=[1, 1, 1, 1])
    net.node("Add", "b r", "s")
    net.node("Relu", "s", "y")
    plain = net.model(inputs={"x": ("n", 3, 6, 6)})
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "m.onnx")
    level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.graph_optimization_level = level
    onnxruntime.InferenceSession(plain.SerializeToString(), options)
    assert "FusedConv" in kinds(onnx.load(tmp_path / "m.onnx"))

    file = open_onnx(tmp_path / "m.onnx")
    assert sorted(kinds(file.model)) == ["Add", "Conv", "Conv", "Relu", "Relu"]
    assert "stand apart" in file.repairs[-1]
    x = images(2, 3, 6, 6)
    assert np.allclose(run(file.model, x), run(plain, x), atol=1e-5)
    found = ds.inspect(tmp_path / "m.onnx").convolutions
    assert [one.reason and one.reason.code for one in found] == ["stem", "stem"]
