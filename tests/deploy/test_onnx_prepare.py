"""What is done to an .onnx file before it is quantized: valid files of the same outputs."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_native import Net, images, outputs
from refusals import refuses

import dsconvert as ds
from dsconvert.base.errors import InputError
from dsconvert.deploy.exporting import onnx_prepare
from dsconvert.deploy.exporting.export import export
from dsconvert.deploy.exporting.onnx_half import to_float16
from dsconvert.deploy.exporting.onnx_prepare import prepared
from dsconvert.deploy.exporting.onnx_source import read_onnx

X = images(8, 6, 9, 10)


def decibels(expected, got):
    noise = np.sum((np.asarray(expected, np.float64) - got) ** 2)
    return 10 * np.log10(np.sum(np.asarray(expected, np.float64) ** 2) / max(noise, 1e-300))


def ready(model, folder, **saved):
    path = folder / "model.onnx"
    onnx.save(onnx.ModelProto.FromString(model.SerializeToString()), path, **saved)
    file, notes = prepared(read_onnx(path), folder, [X])
    return onnx.load(file), notes


def upsampled(opset):
    net = Net()
    net.conv("x", "a", pads=[1] * 4)
    scales = net.constant("scales", np.float32([1, 1, 2, 2]))
    net.node("Upsample" if opset == 9 else "Resize", ["a", scales], "u", mode="linear")
    net.conv("u", "y", (8, 4), pads=[1] * 4)
    return net.model(opset=opset, ir=5)


@pytest.mark.parametrize("opset", [9, 10])
def test_an_old_resize_keeps_its_coordinates(opset, tmp_path):
    model = upsampled(opset)
    got, notes = ready(model, tmp_path)
    assert decibels(outputs(model, X)[0], outputs(got, X)[0]) > 100
    assert notes == (f"converted from opset {opset} to 13: quantization per channel needs it",)


def test_a_conversion_that_changes_the_outputs_is_refused(tmp_path, monkeypatch):
    """As onnx's own converter does it: with another rule of coordinates."""
    monkeypatch.setattr(onnx_prepare, "_ASYMMETRIC_OPSET", 0)
    with pytest.raises(InputError, match=r"SQNR of [\d.]+ dB"):
        ready(upsampled(10), tmp_path)


@pytest.mark.parametrize("quantize", ["dynamic", "int8"])
@pytest.mark.parametrize("external", [False, True])
def test_files_beside_the_model_stay(quantize, external, tmp_path, monkeypatch):
    """ONNX Runtime's quantizer writes and removes NAME-inferred.onnx beside what it reads."""
    cannot_be_called = None
    monkeypatch.setattr(
        "onnxruntime.quantization.shape_inference.quant_pre_process", cannot_be_called
    )
    net = Net()
    net.conv("x", "y")
    source, beside = tmp_path / "models", tmp_path / "models" / "m-inferred.onnx"
    source.mkdir()
    beside.write_bytes(b"somebody's")
    more = {"save_as_external_data": True, "size_threshold": 0} if external else {}
    onnx.save(net.model(), source / "m.onnx", **more)
    there = sorted(source.iterdir())
    chosen = {"calibration": [X]} if quantize == "int8" else {}
    export(source / "m.onnx", tmp_path / "out.onnx", quantize=quantize, **chosen)
    assert beside.read_bytes() == b"somebody's"
    assert sorted(source.iterdir()) == there


def test_folding_that_changes_the_outputs_is_not_used(tmp_path, monkeypatch):
    net = Net()
    net.conv("x", "y")
    model = net.model()

    def folds_wrongly(source, target, **_):
        wrong = onnx.load(source)
        wrong.graph.node[0].op_type = "Conv"
        kernel = wrong.graph.initializer[0]
        kernel.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(kernel) * 1.01, kernel.name))
        onnx.save(wrong, target)

    monkeypatch.setattr("onnxruntime.quantization.shape_inference.quant_pre_process", folds_wrongly)
    got, _ = ready(model, tmp_path)
    np.testing.assert_array_equal(outputs(got, X)[0], outputs(model, X)[0])


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("quantize", ["dynamic", "int8", "float16"])
def test_files_of_ir_3_become_valid_ones(listed, quantize, tmp_path):
    net = Net()
    net.conv("x", "y", pads=[1] * 4)
    model = net.model(opset=8, ir=3, listed=listed, producer_name="CNTK", producer_version="2.6")
    onnx.save(model, tmp_path / "m.onnx")
    path = tmp_path / "q.onnx"
    export(tmp_path / "m.onnx", path, quantize=quantize, calibration=X, verification=X)
    written = onnx.load(path)
    onnx.checker.check_model(written, full_check=True)
    assert [x.name for x in written.graph.input] == ["x"]
    assert (written.producer_name, written.producer_version) == ("CNTK", "2.6")


class TestResizeOfSomeAxes:
    @pytest.mark.parametrize("axes", [[2, 3], [3, 2], [-1, 2]])
    @pytest.mark.parametrize("by", ["sizes", "scales"])
    @pytest.mark.parametrize("external", [False, True])
    def test_becomes_one_of_all(self, axes, by, external, tmp_path):
        net = Net()
        net.constant("sizes", np.int64([13, 14]))
        net.constant("scales", np.float32([1.5, 2]))
        net.conv("x", "a", (6, 6), pads=[1] * 4)
        inputs = ["a", "", "", "sizes"] if by == "sizes" else ["a", "", "scales"]
        net.node("Resize", inputs, "y", mode="linear", antialias=1, axes=axes)
        model = net.model(opset=18, inputs={"x": ("n", 6, 9, 10)})
        got, _ = ready(model, tmp_path, save_as_external_data=external, size_threshold=512)
        (node,) = [node for node in got.graph.node if node.op_type == "Resize"]
        assert "axes" not in {attribute.name for attribute in node.attribute}
        np.testing.assert_array_equal(outputs(got, X)[0], outputs(model, X)[0])

    def test_int8(self, tmp_path):
        net = Net()
        net.conv("x", "a", pads=[1] * 4)
        net.node("Relu", "a", "r")
        net.node("Resize", ["r", "", "", net.constant("hw", np.int64([13, 14]))], "u",
                 mode="linear", axes=[2, 3])  # fmt: skip
        net.conv("u", "y", (8, 4), pads=[1] * 4)
        onnx.save(net.model(opset=18), tmp_path / "m.onnx")
        data = images(40, 6, 9, 10)
        artifact = export(
            tmp_path / "m.onnx", tmp_path / "q.onnx", quantize="int8", calibration=data
        )
        assert artifact.fidelity[0].sqnr_db > 30


class TestFloat16:
    def test_a_value_out_of_its_range_stays_float32(self):
        net = Net()
        gain = np.linspace(1e3, 3e3, 8).astype(np.float32)
        net.conv("x", "a", pads=[1] * 4)
        net.node("Mul", ["a", net.constant("gain", gain[:, None, None])], "big")
        net.norm("big", "n")
        net.conv("n", "y", (8, 4))
        (variance,) = (t for t in net.weights if t.name == "n.var")
        variance.CopyFrom(numpy_helper.from_array(gain**2, "n.var"))
        model = net.model()
        assert model.graph.node[2].op_type == "BatchNormalization"

        expected = outputs(model, X)[0]
        half = to_float16(onnx.ModelProto.FromString(model.SerializeToString()))
        assert decibels(expected, outputs(half, X)[0]) > 45
        kinds = {tensor.name: tensor.data_type for tensor in half.graph.initializer}
        assert kinds["n.var"] == TensorProto.FLOAT
        assert kinds["a.kernel"] == TensorProto.FLOAT16

    def test_small_weights_among_others_become_float16(self):
        net = Net()
        kernel = net.normal(8, 6, 3, 3)
        kernel[0] = 1e-9
        net.nodes.append(helper.make_node("Conv", ["x", net.constant("w", kernel)], ["y"], "conv"))
        half = to_float16(net.model())
        assert half.graph.initializer[0].data_type == TensorProto.FLOAT16

    @pytest.mark.parametrize("node", [False, True])
    def test_scales_that_are_not_given_stay_so(self, node):
        """Exporters write one empty constant for the region and the scales of a Resize."""
        net = Net()
        net.conv("x", "a", pads=[1] * 4)
        empty = np.zeros(0, np.float32)
        if node:
            made = helper.make_node("Constant", [], ["none"], value=numpy_helper.from_array(empty))
            net.nodes.append(made)
        none = "none" if node else net.constant("none", empty)
        sizes = net.constant("sizes", np.array([len(X), 8, 9, 11], np.int64))
        net.node("Resize", ["a", none, none, sizes], "y", mode="linear")
        model = net.model()
        half = to_float16(onnx.ModelProto.FromString(model.SerializeToString()))
        onnx.checker.check_model(half, full_check=True)
        assert decibels(outputs(model, X)[0], outputs(half, X)[0]) > 45


@pytest.mark.parametrize("kind", ["Relu", "Clip"])
def test_an_output_that_a_rectifier_reads_keeps_its_negative_values(kind, tmp_path):
    """As an embedding before the last Relu, or a level of a feature pyramid."""
    net = Net()
    net.conv("x", "features", pads=[1] * 4)
    limits = [] if kind == "Relu" else [net.constant("low", np.float32(0)), ""]
    net.node(kind, ["features", *limits], "r")
    net.conv("r", "y", (8, 8), pads=[1] * 4)
    path = tmp_path / "model.onnx"
    model = net.model("features y")
    onnx.save(model, path)
    x = images(40, 6, 9, 10)
    artifact = export(path, tmp_path / "int8.onnx", quantize="int8", calibration=x)
    assert {one.name: one.sqnr_db > 25 for one in artifact.fidelity} == {
        "features": True,
        "y": True,
    }
    got = onnx.load(tmp_path / "int8.onnx")
    assert outputs(got, x)[0].min() < 0.5 * outputs(model, x)[0].min()
    quantized = {
        name for node in got.graph.node for name in node.input if "DequantizeLinear" in name
    }
    assert sum(node.op_type == "Conv" for node in got.graph.node) == 2
    assert len(quantized) >= 5  # nothing was left in float for it


@pytest.mark.parametrize("shape", [(1, 5), (1,), ()])
def test_a_bias_of_one_row_or_number_becomes_one_of_numbers(tmp_path, shape):
    """The quantizer reads it number by number, and failed on rows and single numbers."""
    net = Net()
    net.conv("x", "a")
    net.node("Flatten", "a", "f")
    net.node("Gemm", ["f", net.constant("w", (448, 5)), net.constant("row", shape)], "y")
    model = net.model()
    got, _ = ready(model, tmp_path)
    (dense,) = [node for node in got.graph.node if node.op_type == "Gemm"]
    (bias,) = [tensor for tensor in got.graph.initializer if tensor.name == dense.input[2]]
    assert list(bias.dims) == [5]
    artifact = export(tmp_path / "model.onnx", tmp_path / "q.onnx", quantize="int8", calibration=X)
    assert artifact.failures == ()


def test_a_branch_reads_what_was_rectified(tmp_path):
    """The quantizer takes a Relu away, and does not see that a branch reads its result."""
    net = Net()
    net.conv("x", "a", pads=[1] * 4)
    net.node("Relu", "a", "r")
    net.node("ReduceMax", "r", "largest", keepdims=0)
    net.node("Greater", ["largest", net.constant("zero", np.float32(0))], "bright")
    value = helper.make_tensor_value_info
    branches = {
        name: helper.make_graph(
            [helper.make_node(kind, ["r"], [f"{name}_y"])],
            name,
            [],
            [value(f"{name}_y", TensorProto.FLOAT, None)],
        )
        for name, kind in (("then_branch", "Abs"), ("else_branch", "Neg"))
    }
    net.node("If", "bright", "chosen", **branches)
    net.conv("chosen", "y", (8, 8), pads=[1] * 4)
    onnx.save(net.model(), tmp_path / "model.onnx")
    artifact = export(tmp_path / "model.onnx", tmp_path / "q.onnx", quantize="int8", calibration=X)
    assert artifact.fidelity[0].sqnr_db > 25


@pytest.fixture
def blocked(tmp_path):
    """A file that ONNX Runtime optimised for the processor that the test runs on."""
    onnxruntime = pytest.importorskip("onnxruntime")
    net = Net()
    net.conv("x", "a", (6, 16), pads=[1] * 4)
    net.node("Relu", "a", "r")
    net.conv("r", "y", (16, 16), pads=[1] * 4)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "blocked.onnx")
    onnxruntime.InferenceSession(net.model().SerializeToString(), options)
    if "com.microsoft.nchwc" not in {
        n.domain for n in onnx.load(tmp_path / "blocked.onnx").graph.node
    }:
        pytest.skip("ONNX Runtime has no such layout here")
    return tmp_path / "blocked.onnx"


@pytest.mark.parametrize("quantize", ["int8", "dynamic"])
def test_a_layout_of_one_processor_is_refused(quantize, blocked):
    with refuses("not-quantizable") as refused:
        export(blocked, blocked.with_name("q.onnx"), quantize=quantize, calibration=X)
    assert "ORT_ENABLE_EXTENDED" in refused.value.hint


def test_a_layout_of_one_processor_is_not_imported(blocked):
    with refuses("operators-not-imported") as refused:
        ds.import_onnx(blocked)
    assert "ORT_ENABLE_EXTENDED" in refused.value.hint
