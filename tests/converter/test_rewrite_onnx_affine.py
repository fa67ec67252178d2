"""What scales the channels behind a Conv goes into its pairs: BatchNormalization, Mul, Add."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx_native import (
    Net,
    X,
    assert_same_outputs,
    exactly,
    images,
    kinds,
    outputs,
    relative,
    rewritten,
)

from dsconvert.converter.core.types import ORDERS
from dsconvert.converter.rewrite import rewrite


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
