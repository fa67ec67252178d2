"""What a file says of its opset and its inputs is put as all readers take it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx_nets import floats, graph, node

from dsconvert.deploy.exporting.export import export
from dsconvert.formats.onnx.open import open_onnx
from dsconvert.formats.onnx.shapes import shape_of
from dsconvert.models.onnx_import import import_onnx

X = np.random.default_rng(0).normal(size=(4, 3, 6, 6)).astype(np.float32)


def one(shape, outputs="y", first=()):
    """A convolution of three channels, behind some nodes that make x0 of x."""
    given = "x0" if first else "x"
    nodes = [*first, node("Conv", f"{given} w", "y", pads=[1, 1, 1, 1])]
    return graph(nodes, shape, outputs, w=floats(4, 3, 3, 3))


def opened(model, tmp_path):
    onnx.save(model, tmp_path / "m.onnx")
    return open_onnx(tmp_path / "m.onnx")


@pytest.mark.parametrize("domains", [["", "ai.onnx"], ["ai.onnx"], ["", ""]])
@pytest.mark.parametrize("quantize", ["int8", "dynamic", "float16"])
def test_an_opset_that_is_declared_twice_or_by_its_long_name(domains, quantize, tmp_path):
    model = one(["n", 3, 6, 6])
    del model.opset_import[:]
    model.opset_import.extend(helper.make_opsetid(domain, 17) for domain in domains)
    onnx.save(model, tmp_path / "m.onnx")
    data = {"calibration": [X]} if quantize == "int8" else {}
    made = export(tmp_path / "m.onnx", tmp_path / "small.onnx", quantize=quantize, **data)
    assert made.fidelity[0].sqnr_db > 25


@pytest.mark.parametrize("batch", [-1, 0])
def test_a_batch_that_is_negative_or_none_is_free(batch, tmp_path):
    file = opened(one([batch, 3, 6, 6]), tmp_path)
    assert shape_of(file.model.graph.input[0]) == (None, 3, 6, 6)
    assert len(file.repairs) == 1
    assert import_onnx(tmp_path / "m.onnx").model.input_shape == (None, 6, 6, 3)


FIRST = {
    "at once": [],
    "scaled": [node("Sub", "x m", "a"), node("Div", "a s", "x0")],
    "turned": [node("Transpose", "x", "x0", perm=[0, 3, 1, 2])],
}


@pytest.mark.parametrize("way", FIRST)
def test_channels_that_are_left_open_are_those_of_the_convolution(way, tmp_path):
    model = one([None] * 4, first=FIRST[way])
    if way == "scaled":
        for name in "ms":
            model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(2), name))
    file = opened(model, tmp_path)
    wanted = (None, None, None, 3) if way == "turned" else (None, 3, None, None)
    assert shape_of(file.model.graph.input[0]) == wanted
    assert import_onnx(tmp_path / "m.onnx").model.input_shape == (None, None, None, 3)


def test_an_input_without_a_shape(tmp_path):
    model = one([None] * 4)
    model.graph.input[0].type.tensor_type.ClearField("shape")
    file = opened(model, tmp_path)
    assert shape_of(file.model.graph.input[0]) == (None, 3, None, None)


def test_a_computed_input_of_a_convolution_says_nothing(tmp_path):
    model = one([None] * 4, first=[node("Concat", "x x x", "x0", axis=1)])
    assert shape_of(opened(model, tmp_path).model.graph.input[0]) == (None,) * 4


def test_a_kernel_that_is_an_output_without_a_shape(tmp_path):
    model = one(["n", 3, 6, 6], outputs="y w")
    model.graph.output[1].type.tensor_type.ClearField("shape")
    model.graph.output[0].type.tensor_type.ClearField("shape")
    shapes = [shape_of(value) for value in opened(model, tmp_path).model.graph.output]
    assert shapes == [(None, 4, 6, 6), (4, 3, 3, 3)]
