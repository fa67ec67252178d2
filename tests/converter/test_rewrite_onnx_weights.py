"""Kernels and biases of ONNX graphs, wherever they are stored, are found and rewritten."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx_native import (
    FULL_RANK,
    Net,
    X,
    assert_same_outputs,
    exactly,
    images,
    kinds,
    outputs,
    reasons,
    relative,
    rewritten,
    two_convs,
)
from refusals import refuses

from dsconvert.converter.inspect import inspect
from dsconvert.converter.rewrite import rewrite
from dsconvert.formats.onnx import checking


def _from_split(net, target):
    net.constant("both", net.normal(8, 12, 3, 3))
    net.constant("parts", np.int64([6, 6]))
    net.node("Split", "both parts", [target, "rest"], axis=1)


def _normed_weight(net, target):
    net.constant("v", net.normal(8, 6, 3, 3))
    net.node("ReduceL2", "v", "length", axes=[1, 2, 3], keepdims=1)
    net.node("Div", "v length", target)


def _stored_half(net, target):
    net.constant("half", net.normal(8, 6, 3, 3).astype(np.float16))
    net.node("Cast", "half", target, to=TensorProto.FLOAT)


def _reshaped(net, target):
    net.constant("flat", net.normal(8, 54))
    net.constant("to", np.int64([8, 6, 3, 3]))
    net.node("Reshape", "flat to", target)


def _transposed(net, target):
    net.constant("hwio", net.normal(3, 3, 6, 8))
    net.node("Transpose", "hwio", target, perm=[3, 2, 0, 1])


def _squeezed(net, target):
    net.constant("five", net.normal(1, 8, 6, 3, 3))
    net.constant("first", np.int64([0]))
    net.node("Squeeze", "five first", target)


BEHIND = {
    "transpose": _transposed,
    "split": _from_split,
    "weight norm": _normed_weight,
    "float16": _stored_half,
    "reshape": _reshaped,
    "squeeze": _squeezed,
}
"""Kernels (8, 6, 3, 3) that a graph computes from what it stores."""


def as_constants(model):
    """Every initialiser as a Constant node."""
    made = [helper.make_node("Constant", [], [t.name], value=t) for t in model.graph.initializer]
    nodes = [*made, *model.graph.node]
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


class TestWeights:
    def test_initialisers(self):
        model = two_convs().model("b")
        result = exactly(model, "a", "b")

        assert not {"a.kernel", "b.kernel", "a.bias"} & {t.name for t in result.graph.initializer}
        assert [x.name for x in result.graph.input] == ["x"]

    def test_initialisers_among_the_inputs(self):
        model = two_convs().model("b", ir=3, opset=7, listed=True)
        kept = [t for t in model.graph.initializer if t.name.startswith("b")]
        result = exactly(model, "a")

        given = {x.name: x for x in result.graph.input}
        assert result.ir_version == 3
        assert given.keys() == {"x"} | {t.name for t in result.graph.initializer}
        assert {t.name for t in kept} < given.keys()
        assert "a.kernel" not in given
        for tensor in result.graph.initializer:
            size = [d.dim_value for d in given[tensor.name].type.tensor_type.shape.dim]
            assert size == list(tensor.dims)

    def test_initialisers_partly_among_the_inputs(self):
        model = two_convs().model("b")
        for name, shape in (("a.kernel", (8, 6, 3, 3)), ("b.kernel", (7, 8, 3, 3))):
            model.graph.input.append(helper.make_tensor_value_info(name, 1, shape))
        result = exactly(model, "a")

        assert [x.name for x in result.graph.input] == ["x", "b.kernel"]

    def test_constant_nodes(self):
        result = exactly(as_constants(two_convs().model("b")), "a")

        held = {n.output[0] for n in result.graph.node if n.op_type == "Constant"}
        assert held == {"b.kernel", "b.bias"}

    def test_constant_nodes_with_plain_numbers(self):
        net = Net()
        net.conv("x", "y", (6, 2), bias=False)
        net.node("Constant", [], "bias", value_floats=[0.5, -2.0])
        net.nodes.reverse()
        net.nodes[-1].input.append("bias")
        exactly(net.model(), "y")

    def test_half_precision(self):
        net = two_convs(Net(dtype=np.float16))
        net.nodes[-1].output[0] = "y"
        model = net.model()
        x = X.astype(np.float16)
        result = rewritten(model, "a", "b")
        one = rewritten(model, "a", "b", pairs=1)

        # Two layers of sums of up to 72 products whose factors have 11 bits: 2 % at the very worst.
        assert_same_outputs(model, result, x, tolerance=5e-3)
        assert {t.data_type for t in one.graph.initializer} == {TensorProto.FLOAT16}
        weights = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        wide = Net()
        wide.constant("w", weights["a.kernel"].astype(np.float32))
        wide.node("Conv", "x w", "y", name="a")
        fitted = rewritten(wide.model(), "a", pairs=1)
        narrow = {t.name: numpy_helper.to_array(t) for t in one.graph.initializer}
        for tensor in fitted.graph.initializer:
            expected = numpy_helper.to_array(tensor).astype(np.float16)
            np.testing.assert_array_equal(narrow[tensor.name], expected)

    def test_double_precision(self):
        model = two_convs(Net(dtype=np.float64)).model("b", inputs={"x": (2, 6, 9, 10)})
        result = rewritten(model, "a", "b")
        x = {"x": X.astype(np.float64)}
        expected = ReferenceEvaluator(model).run(None, x)[0]
        got = ReferenceEvaluator(result).run(None, x)[0]

        assert {t.data_type for t in result.graph.initializer} == {TensorProto.DOUBLE}
        # ONNX Runtime has no such Conv. The SVD is in float64, and so should be what is stored.
        assert relative(expected, got) < 1e-13

    def test_bias_given_as_an_empty_string(self):
        net = Net()
        net.conv("x", "y", bias=False)
        net.nodes[0].input.append("")
        model = net.model()
        result = exactly(model, "y")

        assert all(len(n.input) == 2 for n in result.graph.node if n.op_type == "Conv")
        assert not inspect(model).convolutions[0].spec.use_bias

    def test_shared_by_two_convs(self):
        net = Net()
        net.conv("x", "a", (6, 6), pads=[1] * 4)
        net.node("Conv", "a a.kernel a.bias", "b", name="b")
        model = net.model("b")
        both, one = exactly(model, "a", "b"), exactly(model, "b")

        assert not {"a.kernel", "a.bias"} & {t.name for t in both.graph.initializer}
        assert {"a.kernel", "a.bias"} < {t.name for t in one.graph.initializer}

    @pytest.mark.parametrize("listed", [True, False])
    def test_a_kernel_that_is_an_output_stays(self, listed):
        net = Net()
        net.conv("x", "y")
        model = net.model()
        model.graph.output.append(helper.make_tensor_value_info("y.kernel", 1, (8, 6, 3, 3)))
        exactly(model if listed else as_constants(model), "y")

    def test_a_kernel_that_another_node_reads_stays(self):
        net = Net()
        net.conv("x", "y")
        net.node("ReduceSum", "y.kernel", "total")
        exactly(net.model("y total"), "y")

    def test_what_nobody_read_stays(self):
        net = two_convs()
        net.constant("idle", (3,))
        result = exactly(net.model("b"), "a", "b")

        assert "idle" in {t.name for t in result.graph.initializer}

    def test_read_inside_a_branch_only(self):
        """A kernel that an If captures is read by it."""
        net = Net()
        net.conv("x", "a")
        inner = [
            helper.make_graph(
                [
                    helper.make_node(
                        "ReduceSum", ["a.kernel" if yes else "a.bias"], ["out"], keepdims=0
                    )
                ],
                "branch",
                [],
                [onnx.ValueInfoProto(name="out")],
            )
            for yes in (True, False)
        ]
        net.constant("yes", np.array(True))
        net.node("If", "yes", "total", then_branch=inner[0], else_branch=inner[1])
        net.node("Add", "a total", "y")
        exactly(net.model(outputs="y"), "a")

    def test_external_data_are_read(self, tmp_path):
        whole = two_convs().model("b")
        onnx.save(
            whole, tmp_path / "m.onnx", save_as_external_data=True, size_threshold=0, location="w"
        )
        model = onnx.load(tmp_path / "m.onnx", load_external_data=False)
        result = rewritten(model, "a", "b", folder=tmp_path)

        assert_same_outputs(two_convs().model("b"), result, X)
        with refuses("external-data-missing"):
            rewrite(model, include=("a",))

    @pytest.mark.parametrize("what", ["weights", "bias"])
    def test_computed_ones_are_left_alone(self, what):
        """From the data: a hypernetwork's."""
        net = two_convs()
        place = {"weights": 1, "bias": 2}[what]
        stored = net.nodes[0].input[place]
        net.nodes.insert(0, helper.make_node("ReduceMax", ["x"], ["top"], keepdims=0))
        net.nodes.insert(1, helper.make_node("Mul", [stored, "top"], ["made"], "gated"))
        net.nodes[2].input[place] = "made"
        (left, _) = inspect(net.model("b")).convolutions

        assert left.reason.code == "computed"
        assert left.reason.text == f"its {what} are computed by gated (Mul)"
        assert left.macs == 7 * 8 * 6 * 8 * 9

    @pytest.mark.parametrize("how", [*BEHIND])
    @pytest.mark.parametrize("external", [False, True])
    def test_constants_behind_other_nodes(self, how, external, tmp_path, monkeypatch):
        """Exporters without constant folding, weight norm, files stored in float16."""
        net, before = two_convs(), Net(seed=1)
        BEHIND[how](before, "a.made")
        net.nodes[0].input[1] = "a.made"
        net.nodes[:0] = before.nodes
        net.weights = [t for t in net.weights if t.name != "a.kernel"] + before.weights
        model, folder = net.model("b"), None
        if external:
            onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, size_threshold=0)
            # The test's weights are small: what is read from beside has to be large to stay there.
            monkeypatch.setattr(checking, "_SMALL", 64)
            model, folder = onnx.load(tmp_path / "m.onnx", load_external_data=False), tmp_path
        expected = outputs(net.model("b"), X)[0]

        result = rewritten(model, "a", "b", folder=folder)
        opened = onnx.load_model_from_string(result.SerializeToString())
        onnx.external_data_helper.load_external_data_for_model(opened, str(tmp_path))
        assert relative(expected, outputs(opened, X)[0]) <= 1e-5
        left = {t.name for t in opened.graph.initializer} & {t.name for t in before.weights}
        made = {node.op_type for node in opened.graph.node}
        assert (left, made) == (set(), {"Conv", "Add", "Relu"})

    def test_a_constant_that_is_tied_stays_for_the_other_layer(self):
        net = Net()
        net.constant("w", (6, 6, 3, 3))
        net.node("Identity", "w", "tied")
        net.node("Conv", "x tied", "a", name="a", pads=[1] * 4)
        net.node("Conv", "a tied", "y", name="b", pads=[1] * 4)
        result = exactly(net.model(), "a")
        assert kinds(result).count("Identity") == 1

    @pytest.mark.parametrize("method", ["svd", "data"])
    def test_a_fit_to_data_of_constants_behind_other_nodes(self, method):
        net = Net()
        net.constant("w.oihw", (8, 6, 3, 3))
        net.node("Identity", "w.oihw", "w")
        net.node("Conv", "x w", "y", name="a")
        data = {"calibration": images(12, 6, 9, 10)} if method == "data" else {}
        result = rewrite(net.model(), include=("a",), pairs=FULL_RANK, **data)
        assert_same_outputs(net.model(), result.model, X, tolerance=1e-4)

    def test_an_input_of_the_model(self):
        net = Net()
        net.node("Conv", "x w", "y", name="conv")
        model = net.model(inputs={"x": (1, 6, 9, 10), "w": (8, 6, 3, 3)})
        (row,) = inspect(model).convolutions

        assert (row.reason.code, row.macs) == ("computed", 8 * 6 * 9 * 7 * 8)
        assert "an input" in row.reason.text

    def test_sparse_ones(self):
        net = Net()
        net.conv("x", "a")
        net.node("Conv", "a w", "y", name="b")
        values = numpy_helper.from_array(np.float32([1, 2, 3]), "w")
        places = numpy_helper.from_array(np.int64([0, 80, 200]), "w.places")
        model = net.model(outputs="a")
        model.graph.output[0].name = "y"
        model.graph.sparse_initializer.append(
            helper.make_sparse_tensor(values, places, [8, 8, 3, 3])
        )
        assert reasons(model) == {"a": "", "b": "sparse"}
        assert rewrite(model, include=("a",)).model.graph.sparse_initializer  # the checker fails
