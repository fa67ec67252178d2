"""ONNX models by way of Keras."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_nets import floats, graph, node

import dsconvert as ds
from dsconvert.workflows.model_files import open_model
from dsconvert.workflows.onnx_round_trip import convert


def test_a_changed_model_whose_weights_are_beside_the_original(tmp_path, monkeypatch):
    kernel = np.random.default_rng(0).normal(0, 1, (16, 3, 3, 3)).astype(np.float32)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"])],
        "g",
        [value("x", TensorProto.FLOAT, ["n", 3, 5, 5])],
        [value("y", TensorProto.FLOAT, ["n", 16, 3, 3])],
        [numpy_helper.from_array(kernel, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    folder = tmp_path / "there"
    folder.mkdir()
    onnx.save(model, folder / "m.onnx", save_as_external_data=True, size_threshold=0)
    monkeypatch.chdir(tmp_path)
    opened = replace(open_model(folder / "m.onnx"), changed=True)

    made = convert(opened, seed=0)

    (weights,) = made.model.get_weights()
    assert np.array_equal(weights, kernel.transpose(2, 3, 1, 0))
    assert opened.model.graph.initializer[0].data_location == TensorProto.EXTERNAL


@pytest.mark.parametrize("kind", ["TopK", "Softmax"])
def test_files_that_select_by_scores_say_that_rounding_may_select_others(tmp_path, kind):
    """Of two scores that are nearly equal another box may be gathered, and no sample shows it."""
    weights = [
        numpy_helper.from_array(np.linspace(-1, 1, 54).reshape(2, 3, 3, 3).astype(np.float32), "w"),
        numpy_helper.from_array(np.array([2]), "two"),
    ]
    value = helper.make_tensor_value_info
    made, ins = (["y", "i"], ["c", "two"]) if kind == "TopK" else (["y"], ["c"])
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["c"]),
            helper.make_node(kind, ins, made, axis=1),
        ],
        "g",
        [value("x", TensorProto.FLOAT, ["n", 3, 5, 5])],
        [value("y", TensorProto.FLOAT, ["n", 2, 3, 3])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    half = ds.ExportOptions(quantize="float16")
    done = ds.export(model, tmp_path / "half.onnx", half)
    assert any("TopK select" in note for note in done.notes) is (kind == "TopK")


def test_images_fix_the_sizes_that_cannot_stay_free(tmp_path):
    """Bilinear with aligned corners, to the size of the input: Keras draws it for one size only."""
    rng = np.random.default_rng(0)
    value = helper.make_tensor_value_info
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["small"], strides=[2, 2], pads=[1] * 4),
        helper.make_node("Shape", ["x"], ["size"], start=2),
        helper.make_node("Shape", ["small"], ["batch"], end=2),
        helper.make_node("Concat", ["batch", "size"], ["sizes"], axis=0),
        helper.make_node(
            "Resize", ["small", "", "", "sizes"], ["y"],
            mode="linear", coordinate_transformation_mode="align_corners",
        ),
    ]  # fmt: skip
    kernel = rng.normal(size=(4, 3, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [value("y", TensorProto.FLOAT, ["n", 4, "h", "w"])],
        [numpy_helper.from_array(kernel, "w")],
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "m.onnx")
    images = rng.normal(size=(24, 3, 12, 10)).astype(np.float32)

    with pytest.raises(ds.InputError) as refused:
        ds.export(tmp_path / "m.onnx", output=tmp_path / "m.tflite")
    assert "give images" in refused.value.hint
    for data in ({"calibration": images}, {"verification": images}):
        made = ds.export(tmp_path / "m.onnx", output=tmp_path / "m.tflite", overwrite=True, **data)
        assert made.inputs[0].shape[1:] == (12, 10, 3)
        assert made.fidelity[0].relative_error < 1e-5


def test_one_number_for_the_whole_input_is_compared_on_real_inputs():
    """ONNX Runtime gives one for each sample, and Keras a row of one."""
    model = graph([node("Conv", "x w", "c"), node("ReduceMean", "c", "y", keepdims=0)],
                  ["n", 3, 5, 5], "y", w=floats(2, 3, 3, 3))  # fmt: skip
    x = floats(4, 3, 5, 5)
    (close,) = ds.import_onnx(model, data=x).record.fidelity
    assert close.sqnr_db is None or close.sqnr_db > 100
