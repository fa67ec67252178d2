"""LSTM, GRU, RNN, OneHot, GridSample and If: the outputs are ONNX Runtime's."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_graphs import assert_same, run
from onnx_nets import floats, graph, node

from dsconvert.base.errors import InputError
from dsconvert.models.onnx_import import import_onnx


def recurrent(kind, direction, *, bias=True, steps=7, **attributes):
    """A text recogniser: a convolution, columns as time steps, a recurrent layer and its states."""
    gates, directions = (
        {"LSTM": 4, "GRU": 3, "RNN": 1}[kind],
        2 if direction == "bidirectional" else 1,
    )
    weights = {
        "k": floats(3, 2, 8, 3),
        "W": floats(directions, gates * 5, 3, seed=1),
        "R": floats(directions, gates * 5, 5, seed=2),
        "B": floats(directions, 2 * gates * 5, seed=3),
        "axes": np.array([2]),
    }
    outputs = "Y Yh Yc" if kind == "LSTM" else "Y Yh"
    inputs = "t W R B" if bias else "t W R"
    if not bias:
        del weights["B"]
    nodes = [
        node("Conv", "x k", "a", pads=[0, 1, 0, 1]),
        node("Squeeze", "a axes", "s"),
        node("Transpose", "s", "t", perm=[2, 0, 1]),
        node(kind, inputs, outputs, hidden_size=5, direction=direction, **attributes),
    ]
    return graph(nodes, ["n", 2, 8, steps], outputs, **weights)


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(
    ("kind", "attributes"),
    [
        ("LSTM", {}),
        ("GRU", {"linear_before_reset": 1}),
        ("GRU", {"linear_before_reset": 0}),
        ("RNN", {}),
    ],
    ids=["LSTM", "GRU", "GRU, reset before", "RNN"],
)
def test_every_direction(kind, attributes, direction):
    proto = recurrent(kind, direction, **attributes)
    assert_same(proto, [floats(3, 2, 8, 7, seed=9)])


def test_zeros_of_any_batch_as_the_first_state():
    proto = recurrent("LSTM", "forward")
    (lstm,) = (node for node in proto.graph.node if node.op_type == "LSTM")
    values = {
        "zero": np.zeros((1, 1, 1), np.float32),
        "first": np.array([0]),
        "one": np.array([1]),
        "units": np.array([5]),
    }
    proto.graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in values.items())
    lstm.input.extend(["", "state", "state"])
    made = [
        helper.make_node("Shape", ["x"], ["sizes"]),
        helper.make_node("Gather", ["sizes", "first"], ["batch"]),
        helper.make_node("Concat", ["one", "batch", "units"], ["wanted"], axis=0),
        helper.make_node("Expand", ["zero", "wanted"], ["state"]),
        *proto.graph.node,
    ]
    del proto.graph.node[:]
    proto.graph.node.extend(made)
    assert_same(proto, [floats(3, 2, 8, 7, seed=9)])


@pytest.mark.parametrize(
    ("kind", "direction"), [("LSTM", "bidirectional"), ("GRU", "reverse"), ("RNN", "forward")]
)
def test_lengths_of_the_sequences_are_an_input(kind, direction):
    """Behind a sequence's end its outputs are zeros; backwards it begins there."""
    proto = recurrent(kind, direction)
    proto.graph.node[-1].input.append("lengths")
    lengths = helper.make_tensor_value_info("lengths", TensorProto.INT32, ["n"])
    proto.graph.input.append(lengths)
    assert_same(proto, [floats(3, 2, 8, 7, seed=9), np.array([7, 2, 5], np.int32)])


@pytest.mark.parametrize("batch", [1, 2])
def test_constant_states_before_the_first_step(batch):
    proto = recurrent("LSTM", "bidirectional")
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = batch
    proto.graph.node[-1].input.extend(["", "h", "c"])
    states = {"h": floats(2, batch, 5, seed=5), "c": floats(2, batch, 5, seed=6)}
    proto.graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in states.items())
    if batch > 1:
        with pytest.raises(InputError, match="differs between samples"):
            import_onnx(proto)
    else:
        assert_same(proto, [floats(1, 2, 8, 7, seed=9)])


def test_without_a_bias_and_of_any_length():
    proto = recurrent("LSTM", "forward", bias=False, steps="w")
    imported = assert_same(proto, [floats(2, 2, 8, 12, seed=9)])
    assert any("do not train" in note for note in imported.notes)


@pytest.mark.parametrize(
    ("kind", "functions"), [("RNN", ["Relu"]), ("GRU", ["Sigmoid", "Relu"])], ids=["RNN", "GRU"]
)
def test_other_functions_of_the_state(kind, functions):
    proto = recurrent(kind, "forward", activations=functions)
    assert_same(proto, [floats(3, 2, 8, 7, seed=9)])


@pytest.mark.parametrize(
    "attributes",
    [{"activations": ["Sigmoid", "Relu", "Tanh"]}, {"clip": 3.0}, {"input_forget": 1}],
)
def test_cells_of_another_kind_are_refused(attributes):
    with pytest.raises(InputError, match="LSTM"):
        import_onnx(recurrent("LSTM", "forward", **attributes))


def test_states_from_the_data():
    """The state before the first step is computed by the model."""
    proto = graph(
        [
            node("Transpose", "x", "t", perm=[1, 0, 2]),
            node("ReduceMean", "x", "m", axes=[1], keepdims=0),
            node("Unsqueeze", "m first", "h"),
            helper.make_node("GRU", ["t", "W", "R", "", "", "h"], ["Y"], "gru", hidden_size=4,
                             linear_before_reset=1),
        ],
        ["n", 6, 4],
        "Y",
        W=floats(1, 12, 4),
        R=floats(1, 12, 4, seed=2),
        first=np.array([0]),
    )  # fmt: skip
    assert_same(proto, [floats(3, 6, 4, seed=4)])


@pytest.mark.parametrize("axis", [-1, 1])
def test_one_hot(axis):
    proto = graph(
        [
            node("Conv", "x k", "a"),
            node("ArgMax", "a", "i", axis=1, keepdims=0),
            node("OneHot", "i depth values", "h", axis=axis),
            node("Add", "h h", "y"),
        ],
        ["n", 3, 6, 6],
        "y",
        k=floats(5, 3, 3, 3),
        depth=np.array(5),
        values=np.array([-1, 2], np.float32),
    )
    assert_same(proto, [floats(2, 3, 6, 6, seed=2)])


@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("align", [0, 1])
def test_grid_sample(mode, padding, align):
    """Places in and out of the image; none on an edge, where rounding decides."""
    proto = graph(
        [
            node("Conv", "x k", "a", pads=[1, 1, 1, 1]),
            node("Conv", "x g", "b", pads=[1, 1, 1, 1]),
            node("Transpose", "b", "grid", perm=[0, 2, 3, 1]),
            node("GridSample", "a grid", "y", mode=mode, padding_mode=padding, align_corners=align),
        ],
        ["n", 3, 7, 5],
        "y",
        k=floats(4, 3, 3, 3),
        g=floats(2, 3, 3, 3, seed=3, scale=0.3),
    )
    assert_same(proto, [floats(2, 3, 7, 5, seed=2)])


@pytest.mark.parametrize("mode", ["linear", "nearest"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
def test_grid_sample_of_volumes(mode, padding):
    """A field of displacements, as registration networks compute them."""
    proto = graph(
        [
            node("Conv", "x k", "a", pads=[1] * 6),
            node("Conv", "x g", "b", pads=[1] * 6),
            node("Transpose", "b", "grid", perm=[0, 2, 3, 4, 1]),
            node("GridSample", "a grid", "y", mode=mode, padding_mode=padding),
        ],
        ["n", 2, 5, 4, 3],
        "y",
        opset=20,
        k=floats(3, 2, 3, 3, 3),
        g=floats(3, 2, 3, 3, 3, seed=3, scale=0.3),
    )
    assert_same(proto, [floats(2, 2, 5, 4, 3, seed=2)])


@pytest.mark.parametrize("yes", [True, False])
def test_a_branch_of_a_constant_condition_is_taken(yes):
    def branch(factor):
        return helper.make_graph(
            [helper.make_node("Mul", ["a", "factor"], ["out"])],
            "branch",
            [],
            [onnx.ValueInfoProto(name="out")],
            [onnx.numpy_helper.from_array(np.float32(factor), "factor")],
        )

    proto = graph([node("Conv", "x k", "a"), node("Identity", "a", "y")], ["n", 3, 6, 6], "y",
                  k=floats(4, 3, 3, 3), yes=np.array(yes))  # fmt: skip
    taken = helper.make_node(
        "If", ["yes"], ["i"], "if", then_branch=branch(2), else_branch=branch(3)
    )
    proto.graph.node.insert(1, taken)
    proto.graph.node[2].input[0] = "i"
    x = floats(2, 3, 6, 6, seed=2)
    imported = assert_same(proto, [x])
    (written,) = run(imported.write_back(), [x])
    np.testing.assert_allclose(written, run(proto, [x])[0], rtol=1e-5)


@pytest.mark.parametrize("kind", ["Det", "DeformConv"])
def test_what_keras_cannot_draw_is_refused_by_name(kind):
    given = {"Det": "x", "DeformConv": "x k x"}[kind]
    value = helper.make_tensor_value_info
    made = helper.make_graph(
        [helper.make_node(kind, given.split(), ["y"], "it")],
        "g",
        [value("x", TensorProto.FLOAT, [1, 2, 4])],
        [onnx.ValueInfoProto(name="y")],
        [onnx.numpy_helper.from_array(floats(1, 2, 3, 3), "k")],
    )
    with pytest.raises(InputError, match=kind):
        import_onnx(helper.make_model(made, opset_imports=[helper.make_opsetid("", 19)]))


def test_a_table_is_not_transposed():
    """Of values that are told apart by their axes no file may have another order than ONNX."""
    proto = graph(
        [node("Conv", "x k", "a"), node("Greater", "a z", "g"), node("NonZero", "g", "n"),
         node("Transpose", "n", "t", perm=[1, 0]),
         node("ReduceMean", "a", "m", axes=[2, 3], keepdims=0),
         node("Transpose", "m", "y", perm=[1, 0])],
        [1, 3, 6, 6], "t y", k=floats(4, 3, 3, 3), z=np.float32(0),
    )  # fmt: skip
    imported = assert_same(proto, [floats(1, 3, 6, 6, seed=2)])
    assert imported.output_axes == ((0, 1), (0, 1))


SEQUENCES = {
    "sizes": [
        node("SplitToSequence", "a sizes", "s", axis=1),
        node("SequenceAt", "s one", "p"),
        node("SequenceAt", "s last", "q"),
        node("Concat", "p q", "y", axis=1),
    ],
    "a size": [
        node("SplitToSequence", "a three", "s", axis=1),
        node("SequenceAt", "s one", "p"),
        node("SequenceConstruct", "p p", "t"),
        node("ConcatFromSequence", "t", "y", axis=1),
    ],
    "each alone": [
        node("SplitToSequence", "a", "s", axis=2, keepdims=0),
        node("SequenceAt", "s one", "p"),
        node("SequenceAt", "s last", "q"),
        node("SequenceConstruct", "q p", "t"),
        node("ConcatFromSequence", "t", "y", axis=1, new_axis=1),
    ],
}


@pytest.mark.parametrize("kind", SEQUENCES)
def test_sequences_of_known_parts(kind):
    proto = graph(
        [node("Conv", "x k", "a"), *SEQUENCES[kind]],
        ["n", 3, 6, 6],
        "y",
        k=floats(7, 3, 3, 3),
        sizes=np.array([2, 1, 4]),
        three=np.array(3),
        one=np.array(1),
        last=np.array(-1),
    )
    assert_same(proto, [floats(2, 3, 6, 6, seed=2)])


def test_a_condition_on_the_number_of_axes():
    """As PyTorch writes `squeeze`."""

    def branch(kind):
        made = helper.make_node(kind, ["p", "axes"] if kind == "Squeeze" else ["p"], ["out"])
        return helper.make_graph([made], "branch", [], [onnx.ValueInfoProto(name="out")])

    taken = helper.make_node(
        "If", ["yes"], ["y"], "if", then_branch=branch("Squeeze"), else_branch=branch("Identity")
    )
    nodes = [
        node("Conv", "x k", "a"),
        node("GlobalAveragePool", "a", "p"),
        node("Shape", "p", "shape"),
        node("Size", "shape", "rank"),
        node("Equal", "rank four", "yes"),
        taken,
    ]
    axes = {"axes": np.array([2, 3]), "four": np.array(4)}
    proto = graph(nodes, ["n", 3, 6, 6], "y", k=floats(4, 3, 3, 3), **axes)
    assert_same(proto, [floats(2, 3, 6, 6, seed=2)])


def test_gathered_at_computed_places_for_any_batch():
    """The boxes of the best scores: a batch larger than those that were probed."""
    proto = graph(
        [
            node("TopK", "x count", "v i", axis=2),
            node("Concat", "x x", "t", axis=1),
            node("Concat", "i i", "j", axis=1),
            node("GatherElements", "t j", "y", axis=2),
        ],
        ["n", 3, 8],
        "y",
        count=np.array([4]),
    )
    assert_same(proto, [floats(5, 3, 8, seed=2)])
