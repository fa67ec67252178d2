"""Quantized graphs of every form as float ones: close to the model that they were made from."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_calibration import Reader
from onnx_native import Net, images, outputs
from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static
from refusals import refuses

import dsconvert as ds
from dsconvert.base.errors import InputError
from dsconvert.formats.onnx.checking import check_runs
from dsconvert.formats.onnx.dequantize import dequantized, is_quantized
from dsconvert.formats.onnx.open import open_onnx
from dsconvert.workflows.model_files import ModelPath

X = images(32, 6, 9, 10)


def network():
    """Convolutions with and without a Relu, a sum, pools and a dense layer."""
    net = Net()
    net.conv("x", "a", pads=[1] * 4)
    net.node("Relu", "a", "r")
    net.conv("r", "b", (8, 8), pads=[1] * 4)
    net.node("Add", "b r", "s")
    net.node("MaxPool", "s", "p", kernel_shape=[2, 2], strides=[2, 2])
    net.node("GlobalAveragePool", "p", "g")
    net.node("Flatten", "g", "f")
    net.constant("w", (8, 5))
    net.constant("c", (5,))
    net.node("Gemm", "f w c", "y")
    return net.model(opset=17)


def quantized(folder, form):
    source, path = folder / "float.onnx", folder / f"{form}.onnx"
    onnx.save(network(), source)
    if form == "dynamic":
        quantize_dynamic(source, path, per_channel=True, weight_type=QuantType.QInt8)
    else:
        name, _, activations = form.partition("-")
        quantize_static(
            source,
            path,
            Reader(X),
            quant_format=getattr(QuantFormat, name),
            per_channel=True,
            activation_type=getattr(QuantType, activations),
            weight_type=QuantType.QInt8,
            extra_options={"ActivationSymmetric": False},
        )
    return path


FORMS = ["QDQ-QUInt8", "QDQ-QInt8", "QOperator-QUInt8", "QOperator-QInt8", "dynamic"]


@pytest.mark.parametrize("form", FORMS[:4])
def test_it_has_the_parameters_of_the_float_network(form, tmp_path):
    seen = ds.inspect(quantized(tmp_path, form))
    assert seen.params == ds.inspect(network()).params
    assert seen.params >= seen.kernels


@pytest.mark.parametrize("form", FORMS)
def test_close_to_the_model_it_was_made_from(form, tmp_path):
    path = quantized(tmp_path, form)
    model = onnx.load(path)
    assert is_quantized(model)
    real = dequantized(model, tmp_path)
    assert not is_quantized(real)
    check_runs(real, None)
    assert (
        not {"Cast", "Identity"} & {node.op_type for node in real.graph.node[:-1]} or "dy" in form
    )
    (expected,), (got,) = outputs(network(), X), outputs(real, X)
    # Weights alone are rounded, to 1/127 of their largest value per channel.
    assert np.linalg.norm(got - expected) < 0.02 * np.linalg.norm(expected)
    # A Relu that the quantizer has taken away is still there: sums of positive values.
    assert sum(node.op_type == "Relu" for node in real.graph.node) >= 1


def test_quant_of_low_width_keeps_its_ends(tmp_path):
    """QONNX: weights of 4 bits, activations of 2 without a sign, which end at 3 steps."""
    w = np.random.default_rng(0).normal(0, 1, (4, 6, 1, 1)).astype(np.float32)
    stored = {
        "w": w,
        "ws": np.float32(0.5),
        "zero": np.float32(0),
        "wb": np.float32(4),
        "as": np.float32(0.25),
        "ab": np.float32(2),
    }
    domain = "qonnx.custom_op.general"
    graph = helper.make_graph(
        [
            helper.make_node("Quant", ["w", "ws", "zero", "wb"], ["q"], domain=domain, signed=1,
                             narrow=1, rounding_mode="ROUND"),
            helper.make_node("Conv", ["x", "q"], ["c"]),
            helper.make_node("Quant", ["c", "as", "zero", "ab"], ["y"], domain=domain, signed=0,
                             narrow=0, rounding_mode="ROUND"),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 6, 9, 10])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4, 9, 10])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in stored.items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid(domain, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    (got,) = outputs(dequantized(model, tmp_path), X)
    rounded = np.clip(np.rint(w / 0.5), -7, 7)[:, :, 0, 0] * 0.5
    expected = np.clip(np.einsum("oc,nchw->nohw", rounded, X), 0, 0.75)
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_what_has_no_float_form_is_named():
    node = helper.make_node("MultiThreshold", ["x", "t"], ["y"], domain="qonnx.custom_op.general")
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node], "g", [value("x", 1, [2])], [value("y", 1, [2])],
        [numpy_helper.from_array(np.zeros(3, np.float32), "t")],
    )  # fmt: skip
    with pytest.raises(InputError, match="MultiThreshold") as caught:
        dequantized(helper.make_model(graph), None)
    assert caught.value.code == "operator-not-dequantized"


def test_import_and_rewrite_on_request(tmp_path):
    path = quantized(tmp_path, "QDQ-QUInt8")
    with pytest.raises(InputError) as caught:
        ds.import_onnx(path)
    assert "dequantize" in caught.value.hint
    imported = ds.import_onnx(ModelPath(path, dequantize=True), tmp_path / "m.keras")
    (expected,) = outputs(network(), X)
    got = imported.model.predict(X.transpose(0, 2, 3, 1), verbose=0)
    assert np.linalg.norm(got - expected) < 0.02 * np.linalg.norm(expected)
    small = ds.rewrite(ModelPath(path, dequantize=True), output=tmp_path / "small.onnx")
    assert small.report.rewritten == ("a", "b")
    assert not is_quantized(onnx.load(tmp_path / "small.onnx"))
    assert "SQNR" in small.record.repairs[0]


def test_a_float_file_stays_as_it_is(tmp_path):
    onnx.save(network(), tmp_path / "m.onnx")

    loaded = ds.load(tmp_path / "m.onnx", dequantize=True)

    assert not loaded.changed
    assert "nothing" in loaded.repairs[0]


def test_a_loss_that_cannot_be_measured_is_unknown(tmp_path):
    net = Net()
    net.constant("w", np.ones((8, 6, 3, 3), np.int8))
    net.constant("scale", np.float32(0.01))
    net.node("DequantizeLinear", "w scale", "real")
    net.node("Conv", "x real", "a")
    net.constant("far", np.float32(1e6))
    net.node("Sub", "a far", "b")
    net.node("Log", "b", "y")
    onnx.save(net.model(), tmp_path / "m.onnx")

    (told,) = ds.load(tmp_path / "m.onnx", dequantize=True).repairs
    assert "unknown" in told
    assert "nan" not in told


def test_export_on_request(tmp_path):
    path, small, real = quantized(tmp_path, "QDQ-QUInt8"), tmp_path / "i8.onnx", tmp_path / "r.onnx"
    for output in (small, tmp_path / "m.tflite"):
        with pytest.raises(InputError) as caught:
            ds.export(path, output, ds.ExportOptions(quantize="dynamic"))
        assert "dequantize" in caught.value.hint
    read = ModelPath(path, dequantize=True)
    written = ds.export(read, small, ds.ExportOptions(quantize="int8"), calibration=X)
    assert is_quantized(onnx.load(small))
    assert written.fidelity[0].sqnr_db > 25
    ds.export(read, real, ds.ExportOptions())
    assert not is_quantized(onnx.load(real))
    (expected,), (got,) = outputs(network(), X), outputs(onnx.load(real), X)
    assert np.linalg.norm(got - expected) < 0.02 * np.linalg.norm(expected)


def test_half_precision_becomes_float32(tmp_path):
    path, read, real = tmp_path / "half.onnx", tmp_path / "float.onnx", tmp_path / "r.onnx"
    onnx.save(network(), read)
    ds.export(read, path, ds.ExportOptions(quantize="float16", keep_io=False))
    ds.export(ModelPath(path, dequantize=True), real, ds.ExportOptions())
    kept = onnx.load(real)
    assert {one.data_type for one in kept.graph.initializer} <= {1, 7}
    assert kept.graph.input[0].type.tensor_type.elem_type == 1
    (expected,), (got,) = outputs(network(), X), outputs(kept, X)
    assert np.linalg.norm(got - expected) < 0.002 * np.linalg.norm(expected)


def test_a_float_file_has_nothing_to_export(tmp_path):
    onnx.save(network(), tmp_path / "m.onnx")
    with pytest.raises(InputError) as caught:
        ds.export(
            ModelPath(tmp_path / "m.onnx", dequantize=True), tmp_path / "n.onnx", ds.ExportOptions()
        )
    assert caught.value.code == "onnx-already"


@pytest.mark.parametrize(
    "kind", [TensorProto.FLOAT8E4M3FN, TensorProto.INT4, TensorProto.UINT16, TensorProto.FLOAT]
)
def test_activations_of_few_bits(kind):
    """Whole numbers or not; a zero point of float32 is no such thing, whatever wrote it."""
    net = Net()
    net.conv("x", "a", pads=[1] * 4)
    net.constant("s", np.float32(0.1))
    net.node("QuantizeLinear", "a s z", "q")
    net.node("DequantizeLinear", "q s z", "d")
    net.conv("d", "y", (8, 8), pads=[1] * 4)
    model = net.model(opset=21)
    model.graph.initializer.append(helper.make_tensor("z", kind, [], [0]))
    if kind == TensorProto.FLOAT:
        with refuses("damaged-file"):
            dequantized(model, None)
        return
    assert not is_quantized(dequantized(model, None))


def test_half_precision_weights_that_hold_too_little(tmp_path):
    net = Net()
    net.conv("x", "y", pads=[1] * 4)
    model = net.model(opset=17)
    kernel = model.graph.initializer[0]
    kernel.data_type, kernel.raw_data = TensorProto.FLOAT16, kernel.raw_data[:100]
    onnx.save(model, tmp_path / "m.onnx")
    with refuses("damaged-file"):
        open_onnx(tmp_path / "m.onnx", dequantize=True)
