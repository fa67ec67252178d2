"""Graphs that differ by chance alone become the same file."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper
from onnx_nets import floats, graph, node
from onnxruntime import InferenceSession

from dsconvert.formats.onnx.repeatable import make_repeatable

X = floats(1, 3, 6, 6)


def model(order=(0, 1, 2, 3), names=("p", "q", "r")):
    """Two convolutions beside each other, one of which shares its bias with a third."""
    p, q, r = names
    nodes = [
        node("Conv", f"x {p} {r}", "a", pads=[1] * 4),
        node("Conv", f"x {q} {r}", "b", pads=[1] * 4),
        node("Mul", "a b", "c"),
        node("Relu", "c", "y"),
    ]
    stored = {p: floats(4, 3, 3, 3), q: floats(4, 3, 3, 3, seed=1), r: floats(4, seed=2)}
    stored = {name: stored[name] for name in sorted(stored)}
    return graph([nodes[index] for index in order], (1, 3, 6, 6), "y", **stored)


def test_order_and_names_of_constants_are_those_of_their_readers():
    first, second = model(), model((1, 0, 2, 3), ("z", "f", "k"))
    assert first != second
    for one in (first, second):
        make_repeatable(one)
    assert first.SerializeToString() == second.SerializeToString()
    assert [tensor.name for tensor in first.graph.initializer] == [
        *("Conv/a/weight", "Conv/a/bias"),
        "Conv/b/weight",
    ]
    expected = InferenceSession(model().SerializeToString()).run(None, {"x": X})[0]
    got = InferenceSession(first.SerializeToString()).run(None, {"x": X})[0]
    np.testing.assert_array_equal(got, expected)


def test_what_a_branch_reads_keeps_its_name():
    def branch(name):
        made = helper.make_node("Mul", ["x", "k"], [name])
        end = helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        return helper.make_graph([made], name, [], [end])

    nodes = [
        node("ReduceMax", "x", "m", keepdims=0),
        node("Greater", "m zero", "yes"),
        node("If", "yes", "y", then_branch=branch("then"), else_branch=branch("else")),
    ]
    one = graph(nodes, (1, 3, 6, 6), "y", k=np.float32(2), zero=np.float32(0))
    make_repeatable(one)
    assert {tensor.name for tensor in one.graph.initializer} == {"k", "Greater/yes/1"}
    (got,) = InferenceSession(one.SerializeToString()).run(None, {"x": X})
    np.testing.assert_array_equal(got, 2 * X)
