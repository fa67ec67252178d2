"""Convolutions of ONNX graphs that are left alone have a reason, with figures."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_native import (
    Net,
    X,
    exactly,
    images,
    kinds,
    reasons,
    two_convs,
)

from dsconvert.converter.backends.onnx.read import read_convolutions
from dsconvert.converter.inspect import inspect
from dsconvert.converter.rewrite import rewrite
from dsconvert.formats.onnx.checking import check_runs
from dsconvert.formats.onnx.graph import OnnxGraph


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
