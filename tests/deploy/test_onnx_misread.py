"""Operators that ONNX Runtime's quantizer takes for others are quantized all the same."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import onnx
import pytest
from onnx_nets import floats, graph, node
from refusals import refuses

from dsconvert.deploy.exporting.export import export
from dsconvert.deploy.exporting.onnx_activations import watched_values
from dsconvert.deploy.exporting.onnx_static import quantizing


def test_attention_of_onnx_is_not_that_of_microsoft(tmp_path):
    nodes = [
        node("MatMul", "x q", "xq"),
        node("Attention", "xq x x", "a", q_num_heads=2, kv_num_heads=2),
        node("MatMul", "a o", "y"),
    ]
    weights = {"q": floats(8, 8), "o": floats(8, 4, seed=1)}
    onnx.save(graph(nodes, ["n", 5, 8], "y", opset=23, ir=11, **weights), tmp_path / "m.onnx")
    export(tmp_path / "m.onnx", tmp_path / "small.onnx", quantize="dynamic")
    kinds = [one.op_type for one in onnx.load(tmp_path / "small.onnx").graph.node]
    assert kinds.count("MatMulInteger") == 2
    assert kinds.count("Attention") == 1


def test_a_transposed_convolution_of_groups_with_a_bias(tmp_path):
    nodes = [node("ConvTranspose", "x w b", "y", group=2, strides=[2, 2])]
    weights = {"w": floats(8, 3, 2, 2), "b": floats(6, seed=1)}
    onnx.save(graph(nodes, ["n", 8, 5, 5], "y", **weights), tmp_path / "m.onnx")
    x = np.random.default_rng(0).normal(size=(8, 8, 5, 5)).astype(np.float32)
    made = export(tmp_path / "m.onnx", tmp_path / "small.onnx", quantize="int8", calibration=[x])
    assert made.fidelity[0].sqnr_db > 30
    stored = {
        one.name: one.data_type for one in onnx.load(tmp_path / "small.onnx").graph.initializer
    }
    assert onnx.TensorProto.INT8 in stored.values()


FORMS = {
    "norm of several axes": node("LayerNormalization", "c s t", "y", axis=1),
    "dilated mean": node("AveragePool", "c", "y", kernel_shape=[2, 2], dilations=[2, 2]),
    "crop beyond the image": node(
        "Resize", "c roi  sizes", "y", mode="linear", extrapolation_value=9.0,
        coordinate_transformation_mode="tf_crop_and_resize",
    ),
}  # fmt: skip
FORMS["crop beyond the image"].input[:] = ["c", "roi", "", "sizes"]


def quantized(nodes, path: Path, quantize="int8", opset=19, ir=9, outputs="y", **weights):
    """Write a network of one convolution and these nodes, quantize it, and return what was made."""
    nodes = [node("Conv", "x w", "c", pads=[1, 1, 1, 1]), *nodes]
    weights["w"] = floats(4, 3, 3, 3)
    onnx.save(graph(nodes, ["n", 3, 8, 8], outputs, opset, ir, **weights), path / "m.onnx")
    x = np.random.default_rng(0).normal(size=(16, 3, 8, 8)).astype(np.float32)
    return export(path / "m.onnx", path / "small.onnx", quantize=quantize, calibration=[x])


@pytest.mark.parametrize("form", FORMS)
def test_forms_that_it_does_not_know_stay_in_float(form, tmp_path):
    roi = np.array([0, 0, -0.5, -0.5, 1, 1, 1.5, 1.5], np.float32)
    weights = {"s": floats(4, 8, 8), "t": floats(4, 8, 8, seed=1)}
    given = [name for name in FORMS[form].input if name in ("s", "t", "roi", "sizes")]
    weights |= {"roi": roi, "sizes": np.array([1, 4, 9, 9])}
    made = quantized([FORMS[form]], tmp_path, **{name: weights[name] for name in given})
    assert made.fidelity[0].sqnr_db > 25


BETWEEN = {
    "cubic filter": node("Resize", "c roi scales", "d", mode="cubic"),
    "resize within a box": node(
        "Resize", "c roi roi sizes", "d", axes=[3, 2], mode="linear",
        keep_aspect_ratio_policy="not_larger",
    ),
    "pad of named axes": node("Pad", "c pads value axes", "d"),
    "dilated mean": node("AveragePool", "c", "d", kernel_shape=[2, 2], dilations=[2, 2]),
}  # fmt: skip


@pytest.mark.parametrize("form", BETWEEN)
def test_they_stay_in_float_between_two_convolutions(form, tmp_path):
    weights = {
        "v": floats(4, 4, 3, 3, seed=1),
        "roi": np.zeros(0, np.float32),
        "scales": np.array([1, 1, 1.5, 1.5], np.float32),
        "sizes": np.array([11, 13]),
        "pads": np.array([2, 1, 0, 1]),
        "value": np.float32(0),
        "axes": np.array([-1, 2]),
    }
    read = {"v", *BETWEEN[form].input}
    weights = {name: array for name, array in weights.items() if name in read}
    nodes = [BETWEEN[form], node("Conv", "d v", "y")]
    made = quantized(nodes, tmp_path, **weights)
    assert made.fidelity[0].sqnr_db > 25


def test_a_cubic_filter_of_an_image_from_keras(tmp_path):
    image = keras.Input((16, 16, 3))
    small = keras.layers.Resizing(11, 21, interpolation="bicubic")(image)
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(8, 3)(small))
    model = keras.Model(image, keras.layers.Dense(5, "softmax")(pooled))
    x = np.random.default_rng(0).random((16, 16, 16, 3)).astype(np.float32)
    made = export(model, tmp_path / "small.onnx", quantize="int8", calibration=[x])
    assert made.fidelity[0].sqnr_db > 25


def test_a_file_that_is_refused_when_its_inside_is_read_is_a_sentence(tmp_path):
    model = graph([node("Relu", "x", "y")], [1, 4], "y")
    onnx.save(model, tmp_path / "m.onnx")
    with refuses("does-not-run"):
        list(watched_values(model, ["z"], tmp_path / "m.onnx", [np.ones((1, 4), np.float32)], 1))


@pytest.mark.parametrize("quantize", ["int8", "float16", "dynamic"])
def test_an_input_that_is_an_output_stays(quantize, tmp_path):
    made = quantized([], tmp_path, quantize, outputs="c x")
    assert [one.name for one in onnx.load(tmp_path / "small.onnx").graph.output] == ["c", "x"]
    assert made.fidelity[0].sqnr_db > 25


def test_a_batch_that_is_free_in_name_only(tmp_path):
    nodes = [node("Squeeze", "x first", "s"), node("Unsqueeze", "s first", "y")]
    model = graph(nodes, ["n", 4], "y", first=np.array([0]))
    onnx.save(model, tmp_path / "m.onnx")
    rows = [np.arange(12, dtype=np.float32).reshape(3, 4)]
    found = list(watched_values(model, ["s"], tmp_path / "m.onnx", rows, 8))
    assert np.array_equal([one["s"] for one in found], rows[0])


def test_what_the_quantizer_says_names_no_file_of_its_own(tmp_path):
    path = tmp_path / "named-folded.onnx"
    path.write_bytes(b"graph")
    with refuses("not-quantizable") as caught, quantizing("Plan for float32.", path):
        raise ValueError(f"{path} does not run, nor does {tmp_path}/deeper/file1.onnx")
    assert caught.value.message.endswith("the model: it does not run, nor does it")
