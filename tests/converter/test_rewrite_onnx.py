"""Rewritten ONNX graphs are the given ones but for the chosen Convs, wherever weights are stored.

With as many pairs as the full rank the outputs are the same too.
"""

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
    images,
    kinds,
    outputs,
    reasons,
    relative,
    rewritten,
)
from packaging.version import Version
from refusals import refuses

from dsconvert.converter.backends.onnx.read import read_convolutions
from dsconvert.converter.core.types import ORDERS
from dsconvert.converter.inspect import inspect
from dsconvert.converter.rewrite import rewrite
from dsconvert.formats.onnx import checking
from dsconvert.formats.onnx.checking import check_runs
from dsconvert.formats.onnx.graph import OnnxGraph


def two_convs(net=None, **attributes):
    """x → a → relu → b → y."""
    net = net or Net()
    net.conv("x", "a", **attributes)
    net.node("Relu", "a", "a.relu")
    net.conv("a.relu", "b", (8, 7))
    return net


def exactly(model, *names, x=X, **options):
    """The full-rank rewrite, checked to run and to compute the same."""
    result = rewritten(model, *names, **options)
    assert_same_outputs(model, result, x)
    return result


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


def everything():
    """A model with something in every field that a rewrite could lose."""
    net = Net()
    net.conv("x", "a", pads=[1] * 4, doc_string="kept no more")
    net.node("Gelu", "a", "a.gelu", domain="com.microsoft")
    net.node("Twice", "a.gelu", "a.twice", domain="local")
    net.conv("a.twice", "b", (8, 6), pads=[1] * 4, auto_pad="NOTSET")
    net.node("Add", "b x", "sum", doc_string="a sum")
    net.node("Identity", "side", "side.out", name="")
    function = helper.make_function(
        "local", "Twice", ["v"], ["w"], [helper.make_node("Add", ["v", "v"], ["w"])],
        [helper.make_opsetid("", 17)],
    )  # fmt: skip
    model = net.model(
        "a sum side.out",
        inputs={"x": ("batch", 6, 9, 10), "side": (TensorProto.INT64, (3,)), "idle": (1,)},
        opset={"": 17, "com.microsoft": 1, "ai.onnx.ml": 3, "local": 1},
        functions=[function],
        producer_name="producer",
        producer_version="1.2",
        domain="org.example",
        model_version=7,
        doc_string="about the model",
    )
    helper.set_model_props(model, {"labels": "cat,dog", "size": "9"})
    model.graph.doc_string = "about the graph"
    model.graph.input[0].doc_string = "an image"
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    model.graph.output[1].CopyFrom(
        helper.make_tensor_value_info("sum", 1, ["batch", 6, None, None], "the sum")
    )
    for name, channels in (("a.gelu", 8), ("a.twice", 8), ("b", 6), ("b.kernel", 6), ("x", 6)):
        value = helper.make_tensor_value_info(name, 1, ["batch", channels, None, None])
        if name == "b.kernel":  # will be gone
            value = helper.make_tensor_value_info(name, 1, [6, 8, 3, 3])
        model.graph.value_info.append(value)
    return model


class TestKept:
    def test_everything_else(self):
        model = everything()
        result = exactly_all(model, "a", "b")

        for field in ("ir_version", "opset_import", "producer_name", "producer_version", "domain",
                      "model_version", "doc_string", "metadata_props", "functions"):  # fmt: skip
            assert getattr(result, field) == getattr(model, field), field
        for field in ("name", "doc_string", "input", "output", "metadata_props"):
            assert getattr(result.graph, field) == getattr(model.graph, field), field
        infos = {x.name: x for x in result.graph.value_info}
        for value in model.graph.value_info:
            assert value.name == "b.kernel" or infos.pop(value.name) == value
        assert infos == {}

    def test_untouched_nodes_byte_for_byte(self):
        model = everything()
        result = rewritten(model, "a", "b")
        untouched = [n.SerializeToString() for n in model.graph.node if n.op_type != "Conv"]
        others = [n.SerializeToString() for n in result.graph.node]

        positions = [others.index(text) for text in untouched]
        assert positions == sorted(positions)
        for node in (n for n in result.graph.node if n.SerializeToString() not in untouched):
            assert node.name.startswith(("a_", "b_"))

    def test_without_anything_to_rewrite(self):
        model = two_convs().model("b")
        result = rewrite(model, exclude=("*",))

        assert result.model.SerializeToString() == model.SerializeToString()

    def test_new_names_never_collide(self):
        net = Net()
        net.conv("x", "conv", (6, 6), pads=[1] * 4)
        net.node("Relu", "conv", "conv_dw")
        net.node("Relu", "conv_dw", "conv_between", name="conv_pw")
        net.node("Relu", "conv_between", "conv_dw_weight", name="conv_pw_weight")
        net.node("Mul", ["conv_dw_weight", net.constant("conv_pw_bias", (6, 1, 1))], "y")
        result = exactly(net.model(), "conv", pairs=1000)
        one = rewritten(net.model(), "conv", pairs=1)
        for model in (result, one):
            names = [n.name for n in model.graph.node]
            values = [t.name for t in model.graph.initializer] + ["x"]
            values += [name for n in model.graph.node for name in n.output]
            assert len(set(names)) == len(names)
            assert len(set(values)) == len(values)
        assert_same_outputs(one, one, X)

    def test_names_inside_branches_never_collide(self):
        net = Net()
        net.conv("x", "a")
        branch = helper.make_graph(
            [
                helper.make_node("Relu", ["a"], ["a_between"]),
                helper.make_node("Neg", ["a_between"], ["a_dw_weight"]),
            ],
            "branch",
            [],
            [onnx.ValueInfoProto(name="a_dw_weight")],
        )
        net.constant("yes", np.array(True))
        net.node("If", "yes", "y", then_branch=branch, else_branch=branch)
        exactly(net.model(), "a", pairs=1000)

    @pytest.mark.parametrize("names", [("", ""), ("b", ""), ("", "a"), ("b", "a")])
    def test_names_of_nodes(self, names):
        """They may be empty, or be names of values that other nodes make."""
        net = two_convs()
        net.nodes[0].name, net.nodes[2].name = names
        model = net.model("b")
        found = [row.name for row in inspect(model).convolutions]
        assert len(set(found)) == 2
        for include in ((found[0],), (found[1],), found):
            exactly(model, *include)

    def test_the_same_name_twice(self):
        """The checker takes it; ONNX Runtime does not."""
        net = two_convs()
        net.nodes[0].name = net.nodes[2].name = "same"
        result = rewritten(net.model("b"), "a", "b")
        assert len({node.name for node in result.graph.node}) == len(result.graph.node)

    @pytest.mark.parametrize("pairs", [1, 3])
    def test_a_convs_value_is_still_there_under_its_name(self, pairs):
        """An output, read twice, and captured by a branch at the same time."""
        net = Net()
        net.conv("x", "a", pads=[1] * 4)
        net.node("Relu", "a", "r")
        branch = [
            helper.make_graph(
                [helper.make_node(kind, ["a"], ["out"])], kind, [],
                [onnx.ValueInfoProto(name="out")],
            )
            for kind in ("Neg", "Abs")
        ]  # fmt: skip
        net.constant("yes", np.array(False))
        net.node("If", "yes", "absolute", then_branch=branch[0], else_branch=branch[1])
        model = net.model("r a absolute")
        relu, value, absolute = outputs(rewritten(model, "a", pairs=pairs), X)

        np.testing.assert_array_equal(relu, np.maximum(value, 0))
        np.testing.assert_array_equal(absolute, abs(value))
        exactly(model, "a")

    def test_captured_by_a_loop(self):
        net = Net()
        net.conv("x", "a", (6, 6), pads=[1] * 4)
        body = helper.make_graph(
            [
                helper.make_node("Identity", ["go"], ["go.out"]),
                helper.make_node("Add", ["state", "a"], ["state.out"]),
            ],
            "body",
            [
                helper.make_tensor_value_info("i", TensorProto.INT64, []),
                helper.make_tensor_value_info("go", TensorProto.BOOL, []),
                helper.make_tensor_value_info("state", TensorProto.FLOAT, None),
            ],
            [onnx.ValueInfoProto(name="go.out"), onnx.ValueInfoProto(name="state.out")],
        )
        net.node("Loop", [net.constant("three", np.int64(3)), "", "x"], "y", body=body)
        model = net.model()
        model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", 1, ["n", 6, 9, 10]))
        exactly(model, "a")

    @pytest.mark.parametrize("opset", range(7, 27))
    def test_every_opset(self, opset):
        if opset > onnx.defs.onnx_opset_version():
            pytest.skip(f"onnx {onnx.__version__} does not know it")
        net = Net()
        net.conv("x", "a")
        more = {"spatial": 1} if opset < 9 else {}
        net.norm("a", "a.norm", **more)
        net.node("Relu", "a.norm", "a.relu")
        net.conv("a.relu", "y", (8, 7), auto_pad="SAME_LOWER")
        old = opset < 9
        model = net.model(opset=opset, ir=3 if old else 8 if opset < 21 else 11, listed=old)
        result = exactly(model, "a", "y")

        assert result.opset_import == model.opset_import
        assert "BatchNormalization" not in kinds(result)

    @pytest.mark.skipif(
        Version(onnx.__version__) < Version("1.23"), reason="the checker of onnx 1.23 accepts it"
    )
    def test_an_alias_of_the_standard_domain(self):
        net = Net()
        net.conv("x", "a")
        net.norm("a", "y")
        result = exactly(net.model(opset={"ai.onnx": 17}), "a")
        assert "BatchNormalization" not in kinds(result)

    @pytest.mark.parametrize("order", ORDERS)
    @pytest.mark.parametrize("pairs", [1, 2, 6, 9])
    def test_any_number_of_pairs_is_a_valid_model(self, pairs, order):
        model = two_convs(strides=[2, 1], pads=[2, 0, 1, 3]).model("b")
        result = rewritten(model, "a", "b", pairs=pairs, order=order)
        (expected,), (got,) = outputs(model, X), outputs(result, X)

        assert got.shape == expected.shape
        groups = [
            next(a.i for a in n.attribute if a.name == "group")
            for n in result.graph.node
            if n.op_type == "Conv"
        ]
        assert kinds(result).count("Conv") == 2 * (len(groups) // 2)
        assert max(groups) == 8


def exactly_all(model, *names):
    """As `exactly`, for a model with two inputs that do nothing."""
    result = rewritten(model, *names)
    assert_same_outputs(model, result, X, np.arange(3), np.zeros(1, np.float32))
    return result


# What follows a Conv.


def normed(**attributes):
    net = Net()
    net.conv("x", "a")
    net.norm("a", "y", **attributes)
    return net


class TestBatchNormalization:
    @pytest.mark.parametrize("order", ORDERS)
    @pytest.mark.parametrize("bias", [True, False])
    def test_goes_into_the_pairs(self, order, bias):
        net = Net()
        net.conv("x", "a", bias=bias)
        net.norm("a", "y", epsilon=0.01)
        model = net.model()
        for pairs in (1, 2, 6, 9):
            result = rewritten(model, "a", pairs=pairs, order=order)
            assert set(kinds(result)) == {"Conv"} | ({"Add"} if pairs > 1 else set())
            assert {t.name.split("_")[0] for t in result.graph.initializer} == {"a"}
        assert_same_outputs(model, result, X)

    def test_with_fewer_pairs_is_what_it_was_after_the_pairs(self):
        """The same pairs, with the BatchNormalization kept as it is."""
        model = normed().model()
        kept = normed()
        kept.node("Neg", "a", "also")  # so that it is not the Conv's alone
        apart = rewritten(kept.model("y also"), "a", pairs=1)

        assert "BatchNormalization" in kinds(apart)
        (got,), (expected, _) = outputs(rewritten(model, "a", pairs=1), X), outputs(apart, X)
        assert relative(expected, got) < 1e-5

    def test_a_gain_of_zero(self):
        net = normed()
        gamma = next(t for t in net.weights if t.name == "y.gamma")
        values = np.float32([0, 1, -2, 0, 3, 1e-20, 1, 0])
        gamma.CopyFrom(numpy_helper.from_array(values, "y.gamma"))
        result = exactly(net.model(), "a")
        one = rewritten(net.model(), "a", pairs=1)

        assert "BatchNormalization" not in kinds(result)
        beta = numpy_helper.to_array(next(t for t in net.weights if t.name == "y.beta"))
        np.testing.assert_allclose(outputs(one, X)[0][:, 0], beta[0], rtol=1e-5)

    @pytest.mark.parametrize("what", ["also an output", "also read", "captured"])
    def test_stays_if_its_input_is_needed(self, what):
        net, names = normed(), "y"
        if what == "also an output":
            names = "y a"
        elif what == "also read":
            net.node("Neg", "a", "negative")
            names = "y negative"
        else:
            branch = helper.make_graph(
                [helper.make_node("Neg", ["a"], ["o"])], "b", [], [onnx.ValueInfoProto(name="o")]
            )
            net.constant("yes", np.array(True))
            net.node("If", "yes", "captured", then_branch=branch, else_branch=branch)
            names = "y captured"
        assert "BatchNormalization" in kinds(exactly(net.model(names), "a"))

    def test_in_training_mode_stays(self):
        net = Net()
        net.conv("x", "a")
        net.norm("a", ["y", "mean", "var"], training_mode=1)
        result = rewritten(net.model("y mean var", inputs={"x": (2, 6, 9, 10)}), "a")
        assert "BatchNormalization" in kinds(result)

    def test_in_training_as_it_used_to_be_stays(self):
        """Up to opset 13 it trains where its statistics are outputs. ONNX Runtime does not."""
        net = Net()
        net.conv("x", "a")
        net.norm("a", ["y", "mean", "var"])
        model = net.model("y mean var", opset=13, inputs={"x": (2, 6, 9, 10)})
        assert "BatchNormalization" in kinds(rewrite(model, include=("a",)).model)

    def test_with_parameters_computed_from_constants_goes_too(self):
        net = normed()
        net.node("Abs", "y.var", "positive")
        net.nodes[1].input[4] = "positive"
        net.nodes[1], net.nodes[2] = net.nodes[2], net.nodes[1]
        assert not {"BatchNormalization", "Abs"} & set(kinds(exactly(net.model(), "a")))

    def test_per_position_stays(self):
        """Of opset 7 and 8: parameters of the shape (C, H, W)."""
        net = normed(spatial=0)
        shape = (8, 7, 8)
        net.weights = [
            numpy_helper.from_array(np.broadcast_to(
                numpy_helper.to_array(t)[:, None, None], shape).copy(), t.name)
            if t.name.startswith("y.") else t
            for t in net.weights
        ]  # fmt: skip
        model = net.model(opset=8, inputs={"x": (2, 6, 9, 10)})
        result = rewrite(model, include=("a",), pairs=2).model
        assert "BatchNormalization" in kinds(result)

    def test_shared_parameters_are_fine(self):
        net = Net()
        net.conv("x", "a")
        net.norm("a", "a.norm")
        net.conv("a.norm", "b", (8, 8))
        net.node("BatchNormalization", ["b", *net.nodes[1].input[1:]], "y")
        model = net.model()
        both, one = exactly(model, "a", "b"), exactly(model, "a")

        assert "BatchNormalization" not in kinds(both)
        assert kinds(one).count("BatchNormalization") == 1
        assert len(one.graph.node[-1].input) == 5

    def test_before_a_conv_stays(self):
        net = Net()
        net.norm("x", "x.norm", 6)
        net.conv("x.norm", "y")
        assert kinds(exactly(net.model(), "y"))[0] == "BatchNormalization"

    def test_the_convs_output_is_a_parameter(self):
        """Strange, but valid: eight images of one pixel each, flattened to (8,)."""
        net = Net()
        net.conv("x", "a", (6, 1), (9, 10))
        net.constant("shape", np.int64([-1]))
        net.node("Reshape", "a shape", "a.flat")
        net.constant("one", np.ones(2, np.float32))
        net.node("BatchNormalization", "z a.flat one one one", "y")
        model = net.model(inputs={"x": (2, 6, 9, 10), "z": (1, 2, 3, 3)})
        result = rewritten(model, "a")
        assert_same_outputs(model, result, X, images(1, 2, 3, 3))

    def test_half_precision_with_wide_parameters(self):
        net = Net(dtype=np.float16)
        net.conv("x", "a")
        net.dtype = np.float32
        net.norm("a", "y")
        net.dtype = np.float16
        model = net.model()
        result = rewritten(model, "a")

        assert "BatchNormalization" not in kinds(result)
        assert_same_outputs(model, result, X.astype(np.float16), tolerance=5e-3)


class TestMulAndAdd:
    @pytest.mark.parametrize("order", ORDERS)
    @pytest.mark.parametrize("swapped", [False, True])
    @pytest.mark.parametrize("shapes", [((8, 1, 1), (1, 8, 1, 1)), ((), (1,)), ((1, 1), (8, 1, 1))])
    def test_go_into_the_pairs(self, shapes, swapped, order):
        net = Net()
        net.conv("x", "a")
        step = -1 if swapped else 1
        net.node("Mul", ["a", net.constant("gain", net.normal(*shapes[0]))][::step], "m")
        net.node("Add", ["m", net.constant("offset", net.normal(*shapes[1]))][::step], "y")
        model = net.model()
        result = exactly(model, "a", order=order)

        assert "Mul" not in kinds(result)
        assert not {"gain", "offset"} & {t.name for t in result.graph.initializer}
        assert kinds(rewritten(model, "a", pairs=1)) == ["Conv", "Conv"]

    @pytest.mark.parametrize("kind", ["Mul", "Add"])
    def test_one_of_them(self, kind):
        net = Net()
        net.conv("x", "a", bias=False)
        net.node(kind, ["a", net.constant("c", (8, 1, 1))], "y")
        exactly(net.model(), "a")
        assert kinds(rewritten(net.model(), "a", pairs=1)) == ["Conv", "Conv"]

    def test_add_before_mul(self):
        """Only the Add goes into the pairs."""
        net = Net()
        net.conv("x", "a")
        net.node("Add", ["a", net.constant("offset", (8, 1, 1))], "s")
        net.node("Mul", ["s", net.constant("gain", (8, 1, 1))], "y")
        exactly(net.model(), "a")
        assert kinds(rewritten(net.model(), "a", pairs=1)) == ["Conv", "Conv", "Mul"]

    @pytest.mark.parametrize("kind", ["Mul", "Add"])
    @pytest.mark.parametrize(
        "shape", [(8,), (1, 8), (8, 1), (7, 1), (1, 1, 8), (8, 7, 8), (2, 1, 1, 1), (2, 8, 1, 1),
                  (1, 1, 8, 1, 1), (1, 1, 1, 1, 1)],
    )  # fmt: skip
    def test_what_is_not_per_channel_stays(self, kind, shape):
        """(8,) is per column: the output is 8 wide by chance."""
        shapes = {(8, 1): (8, 1, 1, 8), (7, 1): (1, 1, 7, 1)}
        net = Net()
        net.conv("x", "a", pads=[0, 0, 1 if shape == (8, 1) else 0, 0])
        net.node(kind, ["a", net.constant("c", net.normal(*shapes.get(shape, shape)))], "y")
        model = net.model(inputs={"x": (1 if shape[0] == 2 else 2, 6, 9, 10)})
        if shape == (8, 1):
            model = net.model(inputs={"x": (1, 6, 9, 10)})
        x = X[: model.graph.input[0].type.tensor_type.shape.dim[0].dim_value]
        result = exactly(model, "a", x=x)

        assert kind in kinds(rewritten(model, "a", pairs=1))
        assert "c" in {t.name for t in result.graph.initializer}

    def test_two_dimensional_constant_of_width_one(self):
        """(H, 1): per row, even where H equals the channels."""
        net = Net()
        net.conv("x", "a", pads=[1, 0, 0, 0])  # 8 rows
        net.node("Mul", ["a", net.constant("c", (8, 1))], "y")
        model = net.model()
        exactly(model, "a")
        assert "Mul" in kinds(rewritten(model, "a", pairs=1))

    def test_one_channel(self):
        net = Net()
        net.conv("x", "a", (6, 1))
        net.node("Mul", ["a", net.constant("gain", (8,))], "m")  # per column
        net.node("Add", ["m", net.constant("offset", (1,))], "y")
        exactly(net.model(), "a")

    @pytest.mark.parametrize("other", ["x", "a"])
    def test_a_computed_operand_stays(self, other):
        net = Net()
        net.conv("x", "a", (6, 6), pads=[1] * 4)
        net.node("Mul", ["a", other], "y")
        exactly(net.model(), "a")

    def test_what_is_also_read_stays(self):
        net = Net()
        net.conv("x", "a")
        net.node("Mul", ["a", net.constant("gain", (8, 1, 1))], "m")
        net.node("Add", ["m", net.constant("offset", (8, 1, 1))], "y")
        exactly(net.model("m y"), "a")
        exactly(net.model("a y"), "a")
        assert kinds(rewritten(net.model("m y"), "a", pairs=1)) == ["Conv", "Conv", "Add"]
        assert kinds(rewritten(net.model("a y"), "a", pairs=1)) == ["Conv", "Conv", "Mul", "Add"]

    def test_a_constant_that_others_read_stays_for_them(self):
        net = Net()
        net.conv("x", "a")
        net.node("Mul", ["a", net.constant("c", (8, 1, 1))], "m")
        net.conv("m", "b", (8, 8))
        net.node("Add", "b c", "s")
        net.node("Relu", "s", "r")
        net.node("Mul", "r c", "y")
        result = exactly(net.model(), "a", "b")
        assert "c" in {t.name for t in result.graph.initializer}


class TestLeftAlone:
    def test_with_reason_and_figures(self):
        net = Net()
        net.conv("x", "grouped", (2, 6), group=3)
        net.constant("dw", (6, 1, 3, 3))
        net.node("Conv", "grouped dw", "depthwise", group=6, name="depthwise")
        net.conv("depthwise", "pointwise", (6, 8), (1, 1))
        net.constant("up", (8, 4, 3, 3))
        net.node("ConvTranspose", "pointwise up", "transposed", name="transposed")
        net.conv("transposed", "fine", (4, 5))
        model = net.model("fine", inputs={"x": (1, 6, 9, 10)})
        found = inspect(model)
        rows = {row.name: row for row in found.convolutions}

        assert reasons(model) == {
            "grouped": "groups",
            "depthwise": "depthwise",
            "pointwise": "pointwise",
            "transposed": "transpose",
            "fine": "stem",  # four channels
        }
        assert rows["grouped"].reason.text == "it has 3 groups; only standard ones are rewritten"
        assert rows["grouped"].macs == 7 * 8 * 6 * 2 * 9
        assert rows["depthwise"].macs == 5 * 6 * 6 * 9
        assert rows["pointwise"].params == 6 * 8 + 8
        layers = [7 * 8 * 6 * 2 * 9, 5 * 6 * 6 * 9, 5 * 6 * 48, 5 * 6 * 8 * 4 * 9, 5 * 6 * 180]
        assert found.macs == sum(layers)
        assert kinds(exactly(model, "fine", x=X[:1]))[:4] == kinds(model)[:4]

    @pytest.mark.parametrize("rank", [1, 3])
    def test_of_another_rank(self, rank):
        net = Net()
        net.conv("x", "y", size=(3,) * rank)
        model = net.model(inputs={"x": (1, 6, *[8] * rank)})
        (row,) = inspect(model).convolutions

        assert row.reason.code == "rank"
        assert rewrite(model).model.SerializeToString() == model.SerializeToString()

    def test_quantized(self):
        net = Net()
        net.constant("w", np.ones((8, 6, 3, 3), np.int8))
        net.constant("u", np.ones((8, 8, 3, 3), np.uint8))
        net.constant("scale", np.float32(0.1))
        net.constant("zero", np.int8(0))
        net.constant("uzero", np.uint8(0))
        net.node("DequantizeLinear", "w scale zero", "w.wide")
        net.node("Conv", "x w.wide", "qdq", name="qdq")
        net.node("QuantizeLinear", "qdq scale uzero", "q")
        net.node("QLinearConv", "q scale uzero u scale uzero scale uzero", "ql", name="ql")
        net.node("ConvInteger", "ql u", "y", name="integer")
        model = net.model(inputs={"x": (1, 6, 12, 12)})
        check_runs(model, None)

        assert reasons(model) == {"qdq": "quantized", "ql": "quantized", "integer": "quantized"}

    def test_custom_domain(self):
        net = Net()
        net.constant("w", (8, 6, 3, 3))
        net.node("FusedConv", "x w", "a", domain="com.microsoft", activation="Relu", name="fused")
        net.conv("a", "b", (8, 7))
        net.node("Convert", "b", "y", domain="other")
        model = net.model(outputs="a b", opset={"": 17, "com.microsoft": 1, "other": 1})

        assert reasons(model)["fused"] == "custom"
        assert "com.microsoft.FusedConv" in inspect(model).convolutions[0].reason.text
        assert "Convert_y" not in reasons(model)

    def test_inside_other_graphs(self):
        """Branches, nested ones, loops and functions; the main graph's is rewritten."""

        def graph(name, nodes, given=(), made=("out",)):
            values = [onnx.ValueInfoProto(name=n) for n in made]
            return helper.make_graph(nodes, name, list(given), values)

        def conv(source, target="out", name="conv"):
            return helper.make_node("Conv", [source, "w"], [target], name, pads=[1] * 4)

        net = Net()
        net.constant("w", (6, 6, 3, 3))
        net.constant("most", np.float32(99))
        net.node("ReduceMax", "x", "top", keepdims=0)
        net.node("Less", "top most", "yes")
        net.constant("two", np.int64(2))
        net.conv("x", "conv", (6, 6), pads=[1] * 4)
        nested = helper.make_node(
            "If", ["yes"], ["out"], "inner",
            then_branch=graph("t2", [conv("conv", "deep")], made=["deep"]),
            else_branch=graph("e2", [conv("conv", "deep2", "")], made=["deep2"]),
        )  # fmt: skip
        net.node(
            "If", "yes", "i", name="if",
            then_branch=graph("t", [conv("conv")]),
            else_branch=graph("e", [nested]),
        )  # fmt: skip
        state = [
            helper.make_tensor_value_info("n", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("s", TensorProto.FLOAT, None),
        ]
        same = helper.make_node("Identity", ["go"], ["go2"])
        body = graph("body", [same, conv("s")], state, ["go2", "out"])
        net.node("Loop", ["two", "", "i"], "l", name="loop", body=body)
        net.node("Block", "l", "y", domain="local", name="call")
        function = helper.make_function(
            "local", "Block", ["l"], ["conv"],
            [helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(
                images(6, 6, 3, 3), "w")), conv("l", "conv", "")],
            [helper.make_opsetid("", 17)],
        )  # fmt: skip
        model = net.model(opset={"": 17, "local": 1}, functions=[function])
        model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", 1, ["n", 6, 9, 10]))
        assert reasons(model) == {
            "conv": "",
            "if/conv": "subgraph",
            "if/inner/conv": "subgraph",
            "if/inner/deep2": "subgraph",
            "loop/conv": "subgraph",
            "y": "",  # called as what it makes
        }
        exactly(model, "conv")
        left = {found.name: found.reason for found in read_convolutions(OnnxGraph(model))}
        assert left["Block/conv"].code == "function"  # of a graph whose functions are kept

    def test_inside_functions_each_call_is_rewritten(self):
        function = helper.make_function(
            "local", "Block", ["v", "w"], ["out"],
            [helper.make_node("Conv", ["v", "w"], ["c"], "conv", pads=[1] * 4),
             helper.make_node("Relu", ["c"], ["out"], "relu")],
            [helper.make_opsetid("", 17)],
        )  # fmt: skip
        net = Net()
        for source, target in (("x", "a"), ("a", "y")):
            net.constant(f"{target}.w", net.normal(6, 6, 3, 3) / 7)
            net.node("Block", [source, f"{target}.w"], target, domain="local")
        model = net.model(opset={"": 17, "local": 1}, functions=[function])
        model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", 1, ["n", 6, 9, 10]))
        assert set(reasons(model).values()) == {""}
        result = exactly(model, *reasons(model))
        assert kinds(result).count("Relu") == 2

    @pytest.mark.parametrize("place", [0, 1])
    def test_weights_that_are_not_finite(self, place):
        net = two_convs()
        stored = numpy_helper.to_array(net.weights[place]).copy()
        stored.flat[3] = np.nan if place else np.inf
        net.weights[place].CopyFrom(numpy_helper.from_array(stored, net.weights[place].name))
        assert reasons(net.model("b")) == {"a": "not-finite", "b": ""}

    def test_without_use(self):
        """A Conv that no output needs, or that sees no data, cannot be fitted."""
        net = two_convs()
        net.conv("a", "idle", (8, 7))
        net.constant("fixed", (1, 6, 9, 10))
        net.conv("fixed", "frozen", (6, 7))
        net.node("ReduceMean", "frozen", "mean")
        net.node("Add", "b mean", "y")
        model = net.model()

        assert reasons(model) == {"a": "", "b": "", "idle": "unused", "frozen": "constant"}
        exactly(model, "a", "b")
        result = rewrite(model, calibration=images(12, 6, 9, 10))
        assert result.report.rewritten == ("a", "b")

    def test_figures_with_computed_matrices(self):
        net = Net()
        net.conv("x", "a")
        net.node("Flatten", "a", "flat")
        net.node("Transpose", "flat", "t", perm=[1, 0])
        net.node("Gemm", "flat t", "y")
        model = net.model(inputs={"x": (1, 6, 9, 10)})
        assert inspect(model).macs == 7 * 8 * 8 * 6 * 9

    def test_free_size_has_no_macs(self):
        model = two_convs().model("b", inputs={"x": ("n", 6, "h", "w")})
        found = inspect(model)
        assert found.macs is None
        assert found.params == 6 * 8 * 9 + 8 + 8 * 7 * 9 + 7
        exactly(model, "a", "b")


def test_full_rank_stays_within_the_order():
    """More pairs than the rank are cut down to it."""
    result = rewrite(two_convs().model("b"), include=("a",), pairs=FULL_RANK)
    (row,) = [row for row in result.report.layers if row.pairs]
    assert row.pairs in (6, 8)


DATA = images(40, 6, 9, 10, seed=7)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("tail", ["none", "norm", "dead channels", "mul and add", "half"])
def test_fitted_to_data(tail, order):
    """The error falls with the number of pairs, down to rounding, whatever follows."""
    net = Net(dtype=np.float16 if tail == "half" else np.float32)
    net.conv("x", "a", bias=tail != "norm", pads=[1] * 4)
    if tail == "mul and add":
        net.node("Mul", [net.constant("gain", (8, 1, 1)), "a"], "m")
        net.node("Add", ["m", net.constant("offset", (1, 8, 1, 1))], "y")
    elif tail != "none":
        net.norm("a", "y")
    if tail == "dead channels":
        gamma = next(t for t in net.weights if t.name == "y.gamma")
        values = np.float32([0, 1, -2, 0, 3, 0, 1, 0])
        gamma.CopyFrom(numpy_helper.from_array(values, "y.gamma"))
    model = net.model("a" if tail == "none" else "y")
    x = X.astype(net.dtype)
    errors = []
    for pairs in (1, 2, 4, FULL_RANK):
        result = rewritten(model, "a", pairs=pairs, order=order, calibration=DATA.astype(net.dtype))
        assert set(kinds(result)) <= {"Conv", "Add"}
        errors.append(relative(outputs(model, x)[0], outputs(result, x)[0]))
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 0.05
    assert errors[-1] < (5e-3 if tail == "half" else 1e-5)
