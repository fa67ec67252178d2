"""What counts as a constant of an ONNX graph."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx_native import Net

from dsconvert.formats.onnx.constants import computed_by, constant_of, constant_shape
from dsconvert.formats.onnx.graph import OnnxGraph


def graph_of(net, outputs="y", **more):
    net.node("Add", "x x", "y")
    return OnnxGraph(net.model(outputs, **more))


def test_initialisers_and_constant_nodes():
    net = Net()
    net.constant("stored", np.float32([1, 2]))
    net.nodes.append(helper.make_node("Constant", [], ["node"], value_floats=[3.0, 4.0]))
    graph = graph_of(net)
    np.testing.assert_array_equal(constant_of(graph, "stored"), [1, 2])
    np.testing.assert_array_equal(constant_of(graph, "node"), [3, 4])
    assert constant_of(graph, "x") is None


def test_a_chain_is_computed():
    net = Net()
    net.constant("w", np.arange(6, dtype=np.int8).reshape(2, 3))
    net.constant("scale", np.float32(0.5))
    net.constant("zero", np.int8(1))
    net.node("DequantizeLinear", "w scale zero", "real")
    net.node("Transpose", "real", "turned", perm=[1, 0])
    graph = graph_of(net)
    expected = (np.arange(6).reshape(2, 3).T - 1) * 0.5
    np.testing.assert_array_equal(constant_of(graph, "turned"), expected)
    assert constant_of(graph, "turned") is constant_of(graph, "turned")  # computed once
    assert constant_shape(graph, "turned") == (3, 2)
    assert [node.op_type for node in computed_by(graph, "turned")] == [
        "DequantizeLinear",
        "Transpose",
    ]


@pytest.mark.parametrize(
    ("kind", "inputs", "attributes"),
    [
        ("RandomNormal", "", {"shape": [2, 3]}),
        ("RandomNormalLike", "w", {}),
        ("Shape", "x", {}),
        ("Mul", "w x", {}),
    ],
)
def test_what_is_none(kind, inputs, attributes):
    net = Net()
    net.constant("w", (1, 6, 1, 1))
    net.node(kind, inputs, "v", **attributes)
    net.node("Identity", "v", "after")
    graph = graph_of(net)
    assert constant_of(graph, "v") is None
    assert constant_of(graph, "after") is None
    assert constant_shape(graph, "after") is None


def test_the_type_of_the_data_is_no_constant_but_does_not_change_either():
    net = Net()
    net.constant("w", np.float64([1, 2]))
    net.node("CastLike", "w x", "cast")
    graph = graph_of(net)
    assert constant_of(graph, "cast") is None
    assert ("cast" in graph.sized, "cast" in graph.changing) == (True, False)


def test_a_list_is_none():
    net = Net()
    net.constant("w", (2, 3))
    net.node("SplitToSequence", "w", "parts", axis=0)
    assert constant_of(graph_of(net), "parts") is None


def test_a_branch_that_reads_a_constant_from_outside():
    net = Net()
    net.constant("w", np.float32([1, 2]))
    net.constant("yes", np.array(True))
    branches = [
        helper.make_graph(
            [helper.make_node(kind, ["w"], ["out"])],
            "branch",
            [],
            [helper.make_tensor_value_info("out", TensorProto.FLOAT, [2])],
        )
        for kind in ("Neg", "Abs")
    ]
    net.node("If", "yes", "v", then_branch=branches[0], else_branch=branches[1])
    np.testing.assert_array_equal(constant_of(graph_of(net), "v"), [-1, -2])
