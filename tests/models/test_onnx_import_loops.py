"""Loop, Scan and If, written out: the outputs are ONNX Runtime's."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_graphs import assert_same
from onnx_nets import floats, graph, node
from refusals import refuses

from dsconvert.models.onnx_import import import_onnx

KERNEL = floats(4, 3, 3, 3)
X = floats(2, 3, 6, 6, seed=2)


def typed(name, kind=TensorProto.FLOAT, shape=None):
    return helper.make_tensor_value_info(name, kind, shape)


def body(nodes, inputs, outputs, **weights):
    held = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    return helper.make_graph(nodes, "body", inputs, outputs, held)


def with_loop(turns, goes="go", **given):
    """A convolution whose result is halved and moved in every turn, each turn's kept."""
    made = body(
        [
            node("Cast", "i", "f", to=1), node("Mul", "v half", "m"), node("Add", "m f", "n"),
            node("ReduceMean", "n", "s", axes=[2, 3], keepdims=0), node("Identity", goes, "on"),
        ],
        [typed("i", TensorProto.INT64, []), typed("go", TensorProto.BOOL, []), typed("v")],
        [typed("on", TensorProto.BOOL, []), typed("n"), typed("s")],
        half=np.float32(0.5), **given,
    )  # fmt: skip
    return graph(
        [node("Conv", "x k", "a"), node("Loop", "turns yes a", "b s", body=made),
         node("ReduceMean", "s", "t", axes=[0], keepdims=0),
         node("Flatten", "b", "c"), node("Concat", "c t", "y", axis=1)],
        ["n", 3, 6, 6], "y", k=KERNEL, turns=np.array(turns), yes=np.array(True),
    )  # fmt: skip


def test_a_loop_of_a_known_number_of_turns():
    imported = assert_same(with_loop(3), [X])
    assert not {"Loop"} & {one.op_type for one in imported.source.graph.node}


def test_a_loop_that_may_end_before_is_refused():
    """Its body gives another condition than the one that it is given."""
    with refuses("operators-not-imported"):
        import_onnx(with_loop(3, goes="never", never=np.array(False)))


@pytest.mark.parametrize("back", [0, 1])
def test_a_scan_over_a_known_size(back):
    made = body(
        [node("Add", "sum row", "next"), node("Tanh", "next", "kept")],
        [typed("sum"), typed("row")],
        [typed("next"), typed("kept")],
    )
    scan = node(
        "Scan", "zero a", "last all", body=made, num_scan_inputs=1, scan_input_axes=[2],
        scan_input_directions=[back], scan_output_axes=[2], scan_output_directions=[back],
    )  # fmt: skip
    nodes = [
        node("Conv", "x k", "a"), node("ReduceMean", "a", "zero", axes=[2], keepdims=0), scan,
        node("Unsqueeze", "last two", "u"), node("Concat", "all u", "y", axis=2),
    ]  # fmt: skip
    assert_same(graph(nodes, ["n", 3, 6, 6], "y", k=KERNEL, two=np.array([2])), [X])


def choice(*kinds):
    """An If by the sum of the image, between two operators of the convolution's result."""
    branches = [body([node(kind, "a", "out", **given)], [], [onnx.ValueInfoProto(name="out")])
                for kind, given in kinds]  # fmt: skip
    nodes = [
        node("Conv", "x k", "a"), node("ReduceSum", "x", "s", keepdims=0),
        node("Greater", "s z", "c"),
        node("If", "c", "y", then_branch=branches[0], else_branch=branches[1]),
    ]  # fmt: skip
    return graph(nodes, ["n", 3, 6, 6], "y", k=KERNEL, z=np.float32(0))


def test_a_choice_by_the_data_computes_both_branches():
    proto = choice(("Relu", {}), ("Neg", {}))
    for x in (np.abs(X[:1]), -np.abs(X[:1])):
        assert_same(proto, [x])


def test_a_choice_between_two_shapes_is_refused():
    with refuses("operators-not-imported"):
        import_onnx(choice(("Relu", {}), ("GlobalMaxPool", {})))


def test_a_condition_on_all_samples_keeps_the_batch():
    """For two samples that are tried it may fall out as for each of them alone."""
    then, other = (body([node(kind, "a", "b")], [], [typed("b")]) for kind in ("Relu", "Identity"))
    nodes = [
        node("Conv", "x k", "a"),
        node("ReduceMax", "x", "m", keepdims=0),
        node("Greater", "m zero", "c"),  # of normal numbers the largest always is
        node("If", "c", "y", then_branch=then, else_branch=other),
    ]
    proto = graph(nodes, [1, 3, 6, 6], "y", k=KERNEL, zero=np.float32(0))
    imported = import_onnx(proto)
    assert imported.model.input_shape == (1, 6, 6, 3)
    assert "batch of 1 stays fixed" in imported.notes[0]
