"""What each layer of an int8 file loses."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from refusals import refuses

from dsconvert.base.fidelity import compare_output
from dsconvert.converter.rewrite import rewrite
from dsconvert.deploy.exporting.export import export
from dsconvert.deploy.exporting.improve import OFF
from dsconvert.deploy.exporting.layer_report import layer_report
from dsconvert.deploy.exporting.layer_types import LayerError, QuantizationReport
from dsconvert.deploy.exporting.onnx_static import quantize_static
from dsconvert.deploy.runtimes.registry import open_runtime
from dsconvert.formats.layer_names import layer_name

LAYERS = ["stem", "middle_dw", "middle_pw", "halved", "last_dw", "last_pw", "pool", "scores"]


@pytest.fixture(scope="module")
def files(digits_cnn, digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("layers")
    images, _ = digits
    small = rewrite(digits_cnn, calibration=images[:300], pairs=1).model
    for name in ("full.tflite", "full.onnx"):
        export(small, folder / name)
    # As it comes: with other scales inside the pairs its layers would not be those of full.tflite.
    export(
        small, folder / "int8.tflite", quantize="int8", calibration=images[:100], improvement=OFF
    )
    quantize_static(folder / "full.onnx", folder / "int8.onnx", [images[:100]])
    return folder


@pytest.mark.parametrize("kind", ["tflite", "onnx"])
def test_every_layer_is_compared_and_the_last_is_the_output(files, digits, kind):
    images = digits[0][1500:1540]
    full, quantized = (files / f"{name}.{kind}" for name in ("full", "int8"))
    report = layer_report(full, quantized, [images])
    names = [layer.name for layer in report.layers]
    assert [name for name in names if name in LAYERS] == LAYERS
    assert report.samples == 40
    assert all(layer.finite and 10 < layer.sqnr_db < 60 for layer in report.layers)
    assert all(layer.signal > 0 for layer in report.layers)

    reference, output = (open_runtime(path).predict([images])[0] for path in (full, quantized))
    expected = compare_output("y", reference, output).sqnr_db
    # The runtime's own kernels may round a step of int8 otherwise than those used here.
    assert report.layers[-1].sqnr_db == pytest.approx(expected, abs=1)
    worst = report.worst(5)
    assert len(worst) == 5
    assert worst[0].sqnr_db == min(layer.sqnr_db for layer in report.layers)
    assert [one.sqnr_db for one in worst] == sorted(one.sqnr_db for one in worst)


@pytest.mark.parametrize("kind", ["tflite", "onnx"])
def test_a_file_against_itself_has_no_error(files, digits, kind):
    path = files / f"full.{kind}"
    report = layer_report(path, path, [digits[0][:3]])
    assert report.unmatched == 0
    assert {layer.sqnr_db for layer in report.layers} == {None}


def test_a_broken_layer_is_the_worst_and_those_before_it_are_not(files, digits):
    images = digits[0][1500:1520]
    proto = onnx.load(files / "int8.onnx")
    makers = {node.output[0]: node for node in proto.graph.node}
    (last_dw,) = (n for n in proto.graph.node if n.op_type == "Conv" and "last_dw" in n.name)
    stretched = makers[last_dw.input[1]].input[1]  # the scales of its kernel
    (scale,) = (tensor for tensor in proto.graph.initializer if tensor.name == stretched)
    array = numpy_helper.to_array(scale)
    uneven = array * np.linspace(1, 9, array.size).astype(np.float32)
    scale.CopyFrom(numpy_helper.from_array(uneven, stretched))
    onnx.save(proto, files / "broken.onnx")
    good = layer_report(files / "full.onnx", files / "int8.onnx", [images])
    bad = layer_report(files / "full.onnx", files / "broken.onnx", [images])
    changed = [a.name for a, b in zip(good.layers, bad.layers, strict=True) if a != b]
    assert changed[0] == "last_dw"
    assert bad.worst(1)[0].sqnr_db < 10


def test_what_is_not_finite_is_worst_and_equal_layers_are_last():
    def layer(name, sqnr_db, finite=True):
        return LayerError(
            name=name, node=name, op="Conv", finite=finite, sqnr_db=sqnr_db, signal=1.0
        )

    layers = (layer("a", None), layer("b", 3.0), layer("c", None, False), layer("d", 2.0))
    report = QuantizationReport(samples=1, layers=layers, unmatched=0)
    assert [one.name for one in report.worst(4)] == ["c", "d", "b", "a"]


@pytest.mark.parametrize(
    ("tensor", "name"),
    [
        ("functional_2_1/stem_1/Relu;functional_2_1/stem_1/convolution;x1", "stem"),
        ("functional_1/functional_4_1/relu_1/Relu;functional_1/last_pw_1/convolution", "last_pw"),
        ("functional_2_1/inner_1/conv2d_1_1/depthwise1", "inner/conv2d_1"),
        ("scores", "scores"),
    ],
)
def test_layers_have_the_names_that_keras_knows(tensor, name):
    assert layer_name(tensor) == name


def test_files_that_cannot_be_compared_are_refused(files, digits):
    with refuses("layers-not-comparable"):
        layer_report(files / "full.onnx", files / "int8.tflite", [digits[0][:1]])
