"""Rewritten ONNX graphs are the given ones but for the chosen Convs, wherever weights are stored.

With as many pairs as the full rank the outputs are the same too.
"""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_native import (
    FULL_RANK,
    Net,
    X,
    assert_same_outputs,
    exactly,
    images,
    kinds,
    outputs,
    relative,
    rewritten,
    two_convs,
)
from packaging.version import Version

from dsconvert.converter.core.types import ORDERS
from dsconvert.converter.inspect import inspect
from dsconvert.converter.rewrite import rewrite


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


def exactly_all(model, *names):
    """As `exactly`, for a model with two inputs that do nothing."""
    result = rewritten(model, *names)
    assert_same_outputs(model, result, X, np.arange(3), np.zeros(1, np.float32))
    return result


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


def test_places_of_largest_values_as_an_output():
    """They count on from one image of a batch to the next."""
    net = Net()
    net.conv("x", "a", (6, 12), pads=[1] * 4)
    net.node("Relu", "a", "r")
    net.node("MaxPool", "r", "y places", kernel_shape=[2, 2], strides=[2, 2])
    model = net.model("y", inputs={"x": ("N", 6, 9, 10)})
    places = onnx.helper.make_tensor_value_info("places", onnx.TensorProto.INT64, ["N", 12, 4, 5])
    model.graph.output.append(places)
    report = rewrite(model, calibration=images(20, 6, 9, 10), include=["a"]).report
    assert report.rewritten
