"""What float16 cannot hold, or an operator does not take in it, stays float32."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx_graphs import run
from onnx_nets import floats, graph, node

from dsconvert.deploy.exporting.export import export

X = np.random.default_rng(0).normal(size=(8, 3, 6, 6)).astype(np.float32)
FIRST = node("Conv", "x w", "c", pads=[1, 1, 1, 1])
LAST = node("Conv", "r v", "y", pads=[1, 1, 1, 1])


def half(nodes, path, opset=17, **weights):
    """Write a network as float16; its file, and the SQNR of its output."""
    model = graph(nodes, ["n", 3, 6, 6], "y", opset=opset, w=floats(4, 3, 3, 3), **weights)
    onnx.save(model, path / "m.onnx")
    made = export(path / "m.onnx", path / "h.onnx", quantize="float16", calibration=[X])
    return onnx.load(path / "h.onnx"), made.fidelity[0].sqnr_db


def inside(model):
    """Largest float16 value that the file computes, on the images."""
    outputs = [name for one in model.graph.node for name in one.output]
    watched = onnx.ModelProto.FromString(model.SerializeToString())
    own = {value.name for value in model.graph.output}
    watched.graph.output.extend(onnx.ValueInfoProto(name=one) for one in outputs if one not in own)
    values = [value for value in run(watched, [X]) if value.dtype == np.float16]
    return max(np.abs(value).max() for value in values)


@pytest.mark.parametrize("scale", [1e6, 1e-6, 1e-12])
def test_outputs_beyond_its_range(scale, tmp_path):
    nodes = [FIRST, node("Mul", "c scale", "m"), node("Identity", "m", "y")]
    model, sqnr = half(nodes, tmp_path, scale=np.float32(scale))
    assert sqnr > 60
    assert np.isfinite(inside(model))


def test_values_between_two_layers_are_not_narrowed(tmp_path):
    """Neither of the two constants is out of range by much; what is between them is."""
    nodes = [
        FIRST,
        node("Mul", "c up", "u"),
        node("Relu", "u", "a"),
        node("Mul", "a down", "r"),
        LAST,
    ]
    weights = {"up": np.float32(6e4), "down": np.float32(1 / 6e4), "v": floats(4, 4, 3, 3, seed=1)}
    model, sqnr = half(nodes, tmp_path, **weights)
    assert sqnr > 60
    assert inside(model) < 1e3
    convolutions = [one for one in model.graph.node if one.op_type == "Conv"]
    stored = {one.name: one.data_type for one in model.graph.initializer}
    assert {stored[one.input[1]] for one in convolutions} == {TensorProto.FLOAT16}


def test_an_operator_that_has_no_float16(tmp_path):
    nodes = [FIRST, node("Celu", "c", "r", alpha=0.5), LAST]
    assert half(nodes, tmp_path, v=floats(4, 4, 3, 3, seed=1))[1] > 60


def test_an_operator_that_onnx_runtime_spells_out_for_float32(tmp_path):
    nodes = [FIRST, node("ReduceMean", "c axes", "m", keepdims=0),
             node("Unsqueeze", "m ends", "u"), node("Add", "u matrix", "t"),
             node("AffineGrid", "t size", "g"), node("GridSample", "c g", "y")]  # fmt: skip
    weights = {"ends": np.array([1, 2]), "matrix": np.eye(2, 3, dtype=np.float32)[None],
               "size": np.array([8, 4, 5, 5]), "axes": np.array([1, 2, 3])}  # fmt: skip
    assert half(nodes, tmp_path, opset=20, **weights)[1] > 45


def test_an_input_that_is_one_number(tmp_path):
    """A sampling rate, say, beside a signal: the two have no samples in common."""
    model = graph([FIRST, node("Mul", "c rate", "y")], [1, 3, 6, 6], "y", w=floats(4, 3, 3, 3))
    model.graph.input.append(onnx.helper.make_tensor_value_info("rate", TensorProto.FLOAT, []))
    onnx.save(model, tmp_path / "m.onnx")
    made = export(tmp_path / "m.onnx", tmp_path / "h.onnx", quantize="float16")
    assert made.fidelity[0].sqnr_db > 45


def test_a_condition_beside_a_number_that_is_out_of_range(tmp_path):
    """As tf2onnx spells out a choice: a cast condition times -3e38."""
    nodes = [
        FIRST,
        node("Greater", "c zero", "g"),
        node("Not", "g", "not"),
        node("Cast", "g", "kept", to=TensorProto.FLOAT),
        node("Cast", "not", "gone", to=TensorProto.FLOAT),
        node("Mul", "c kept", "a"),
        node("Mul", "far gone", "b"),
        node("Add", "a b", "s"),
        node("Softmax", "s", "r", axis=1),
        LAST,
    ]
    weights = {"zero": np.float32(0), "far": np.float32(-3e38), "v": floats(4, 4, 3, 3, seed=1)}
    _, sqnr = half(nodes, tmp_path, **weights)
    assert sqnr > 50


def test_numbers_out_of_range_that_nodes_make_of_constants(tmp_path):
    """Places counted from 100,000: no stored number is as large in float."""
    nodes = [
        FIRST,
        node("Range", "begin end step", "places"),
        node("Cast", "places", "numbers", to=TensorProto.FLOAT),
        node("Sub", "numbers origin", "steps"),
        node("Add", "c steps", "r"),
        LAST,
    ]
    weights = {"begin": np.int64(100_000), "end": np.int64(100_006), "step": np.int64(1),
               "origin": np.float32(100_000), "v": floats(4, 4, 3, 3, seed=1)}  # fmt: skip
    assert half(nodes, tmp_path, **weights)[1] > 50
