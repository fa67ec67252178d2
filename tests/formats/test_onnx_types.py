"""Types of values that ONNX's own inference knows nothing of."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx_native import Net, images, outputs, relative

from dsconvert.deploy.exporting.export import export
from dsconvert.deploy.exporting.onnx_half import to_float16
from dsconvert.formats.onnx.types import declare_inner_types

X = images(24, 6, 8, 8)


def foreign():
    """An operator of ONNX Runtime's alone, with a dense layer behind."""
    net = Net()
    net.conv("x", "a", pads=[1] * 4)
    net.node("Relu", "a", "r")
    net.node("Trilu", "r", "t", domain="com.microsoft", upper=1)
    net.node("GlobalAveragePool", "t", "g")
    net.node("Flatten", "g", "f")
    net.constant("w", (8, 5))
    net.constant("c", (5,))
    net.node("Gemm", "f w c", "y")
    return net.model(
        inputs={"x": ("n", 6, 8, 8)}, opset={"": 17, "com.microsoft": 1}, producer_name="test"
    )


def declared(model):
    return {one.name: one.type.tensor_type.elem_type for one in model.graph.value_info}


def test_are_those_that_onnx_runtime_finds():
    model = foreign()
    assert declare_inner_types(model, None)
    assert declared(model) == dict.fromkeys("tgf", onnx.TensorProto.FLOAT)


def test_onnx_own_operators_need_none():
    net = Net()
    net.conv("x", "y")
    assert not declare_inner_types(net.model(), None)


@pytest.mark.parametrize("quantize", ["int8", "dynamic", "float16"])
def test_such_models_are_quantized(quantize, tmp_path):
    model = foreign()
    onnx.save(model, tmp_path / "m.onnx")
    given = {"calibration": [X]} if quantize == "int8" else {"verification": [X]}
    export(tmp_path / "m.onnx", tmp_path / "q.onnx", quantize=quantize, **given)
    assert relative(outputs(model, X)[0], outputs(tmp_path / "q.onnx", X)[0]) < 0.1
    assert any(
        one.data_type in (onnx.TensorProto.INT8, onnx.TensorProto.UINT8, onnx.TensorProto.FLOAT16)
        and one.name.startswith("w")
        for one in onnx.load(tmp_path / "q.onnx").graph.initializer
    )


def test_blocked_layouts_stay_float32():
    """ONNX Runtime's layout for one machine's processor knows no float16."""
    net = Net()
    net.conv("x", "a", (6, 16))
    net.node("ReorderInput", "a", "i", domain="com.microsoft.nchwc")
    net.node("ReorderOutput", "i", "o", domain="com.microsoft.nchwc", channels=16)
    net.conv("o", "y", (16, 4))
    model = net.model(opset={"": 17, "com.microsoft.nchwc": 1})
    half = to_float16(model)
    made = {name: node for node in half.graph.node for name in node.output}
    (reorder,) = (node for node in half.graph.node if node.op_type == "ReorderInput")
    cast = made[reorder.input[0]]
    assert cast.op_type == "Cast"
    assert cast.attribute[0].i == onnx.TensorProto.FLOAT
    assert {one.data_type for one in half.graph.initializer} == {onnx.TensorProto.FLOAT16}


def test_numbers_stay_numbers():
    """What has no axes, and what has an unknown number of them, is told alike."""
    net = Net()
    net.conv("x", "a")
    net.node("Trilu", "a", "t", domain="com.microsoft")
    net.node("ReduceMean", "t", "m", keepdims=0)
    net.node("Mul", "t m", "y")
    model = net.model(opset={"": 17, "com.microsoft": 1})
    declare_inner_types(model, None)
    onnx.checker.check_model(onnx.shape_inference.infer_shapes(model, strict_mode=False))
    assert np.isfinite(outputs(model, images(2, 6, 9, 10))[0]).all()
