"""Opening .onnx files: order of nodes, functions, and what is refused."""

from __future__ import annotations

import os
from itertools import pairwise

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_native import Net, X, assert_same_outputs, outputs
from onnx_nets import small_cnn
from refusals import refuses

from dsconvert.base.errors import InputError
from dsconvert.formats.onnx.branches import without_constant_branches
from dsconvert.formats.onnx.functions import expanded_size, inlined
from dsconvert.formats.onnx.messages import assign
from dsconvert.formats.onnx.open import load, open_onnx
from dsconvert.formats.onnx.session import session
from dsconvert.formats.onnx.sorting import sort_nodes
from dsconvert.models.onnx_import import import_onnx


def chain():
    net = Net()
    net.conv("x", "a", (6, 6), pads=[1] * 4)
    net.node("Relu", "a", "r")
    net.node("Add", "r x", "s")
    net.node("Mul", "s r", "y")
    return net


def shuffled(model, *places):
    assign(model.graph.node, [model.graph.node[place] for place in places])
    return model


def order(model):
    return [node.output[0] for node in model.graph.node]


class TestSorting:
    def test_a_file_that_only_onnx_runtime_takes(self, tmp_path):
        expected = chain().model()
        onnx.save(shuffled(chain().model(), 3, 1, 0, 2), tmp_path / "m.onnx")
        with pytest.raises(onnx.checker.ValidationError):
            onnx.checker.check_model(tmp_path / "m.onnx")
        file = open_onnx(tmp_path / "m.onnx")
        assert order(file.model) == ["a", "r", "s", "y"]
        assert len(file.repairs) == 1
        assert_same_outputs(expected, file.model, X)

    def test_the_import_says_so(self, tmp_path):
        onnx.save(shuffled(chain().model(), 3, 2, 1, 0), tmp_path / "m.onnx")
        assert any("sorted" in note for note in import_onnx(tmp_path / "m.onnx").notes)

    def test_a_sorted_one_stays(self, tmp_path):
        model = chain().model()
        before = model.SerializeToString()
        assert (sort_nodes(model), model.SerializeToString()) == (False, before)
        onnx.save(model, tmp_path / "m.onnx")
        assert open_onnx(tmp_path / "m.onnx").repairs == ()

    def test_a_cycle_stays(self):
        net = Net()
        net.node("Add", "x b", "a")
        net.node("Add", "x a", "b")
        net.node("Relu", "b", "y")
        model = net.model()
        assert not sort_nodes(model)

    def test_what_a_branch_reads_comes_before_it(self):
        net = Net()
        net.constant("yes", onnx.numpy_helper.to_array(helper.make_tensor("t", 9, [], [1])))
        branch = helper.make_graph(
            [helper.make_node("Neg", ["r"], ["out"])], "b", [], [onnx.ValueInfoProto(name="out")]
        )
        net.node("If", "yes", "y", then_branch=branch, else_branch=branch)
        net.node("Relu", "x", "r")
        model = net.model()
        assert sort_nodes(model)
        assert order(model) == ["r", "y"]


def test_an_output_without_a_type_has_that_of_the_runtime(tmp_path):
    net = Net()
    net.conv("x", "a", (6, 8))
    net.constant("ones", np.ones(8, np.float32))
    net.node("GroupNormalization", "a ones ones", "n", num_groups=4)
    net.constant("scale", (8,))
    net.node("LayerNormalization", "n scale", "y")
    model = net.model(inputs={"x": (2, 6, 9, 10)}, opset=21, ir=10)
    model.graph.output[0].ClearField("type")
    onnx.save(model, tmp_path / "m.onnx")
    file = open_onnx(tmp_path / "m.onnx")
    assert any("type" in told for told in file.repairs)
    (output,) = file.model.graph.output
    assert [size.dim_value for size in output.type.tensor_type.shape.dim] == [2, 8, 7, 8]


class TestFunctions:
    @staticmethod
    def nested():
        """Outer calls Inner, which holds a Conv; Twice holds none."""

        def function(name, nodes):
            opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
            return helper.make_function("local", name, ["v", "w"], ["out"], nodes, opsets)

        inner = [helper.make_node("Conv", ["v", "w"], ["out"], "conv", pads=[1] * 4)]
        outer = [
            helper.make_node("Inner", ["v", "w"], ["t"], "call", domain="local"),
            helper.make_node("Relu", ["t"], ["out"], "relu"),
        ]
        net = Net()
        net.constant("w", (6, 6, 3, 3))
        net.node("Outer", "x w", "a", domain="local")
        net.node("Outer", "a w", "b", domain="local")
        net.node("Twice", "b w", "y", domain="local")
        functions = [
            function("Inner", inner),
            function("Outer", outer),
            function("Twice", [helper.make_node("Add", ["v", "v"], ["out"])]),
        ]
        model = net.model(opset={"": 17, "local": 1}, functions=functions)
        model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", 1, ["n", 6, 9, 10]))
        return model

    def test_those_that_hold_a_wanted_node(self):
        model = self.nested()
        result = inlined(model, lambda node: node.op_type == "Conv")
        assert [node.op_type for node in result.graph.node] == [
            "Conv", "Relu", "Conv", "Relu", "Twice"
        ]  # fmt: skip
        assert_same_outputs(model, result, X, tolerance=0)

    def test_all(self):
        result = inlined(self.nested())
        assert len(result.functions) == 0
        assert "Twice" not in {node.op_type for node in result.graph.node}

    def test_none(self):
        model = self.nested()
        assert inlined(model, lambda node: node.op_type == "Gemm") is model

    def test_are_imported(self):
        imported = import_onnx(self.nested())
        (expected,) = outputs(self.nested(), X)
        got = np.asarray(imported.model(X.transpose(imported.input_axes[0])))
        assert abs(got - expected.transpose(imported.output_axes[0])).max() < 1e-4


class TestRefused:
    @pytest.mark.parametrize("content", [None, b"not a model", b""])
    def test_what_is_no_model(self, content, tmp_path):
        path = tmp_path / "m.onnx"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(InputError):
            load(path)

    def test_weights_outside_of_the_folder(self, tmp_path):
        inside = tmp_path / "inside"
        inside.mkdir()
        (tmp_path / "w.bin").write_bytes(bytes(4 * 6 * 6 * 9))
        model = chain().model()
        onnx.external_data_helper.set_external_data(model.graph.initializer[0], "../w.bin")
        model.graph.initializer[0].ClearField("raw_data")
        (inside / "m.onnx").write_bytes(model.SerializeToString())
        for attempt in (open_onnx, lambda path: load(path, weights=True)):
            with refuses("external-data-outside"):
                attempt(inside / "m.onnx")

    @pytest.mark.parametrize("name", ["w.bin\0x", "/proc/self/environ", "link", "pipe"])
    def test_weights_in_what_is_no_file_of_the_folder(self, name, tmp_path):
        (tmp_path / "link").symlink_to("/etc/passwd")
        os.mkfifo(tmp_path / "pipe")
        model = chain().model()
        model.graph.initializer[0].data_location = onnx.TensorProto.EXTERNAL
        model.graph.initializer[0].external_data.add(key="location", value=name)
        model.graph.initializer[0].ClearField("raw_data")
        (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
        code = "external-data-missing" if name == "pipe" else "external-data-outside"
        with refuses(code) as refused:
            open_onnx(tmp_path / "m.onnx")
        assert ("cp -rL" in str(refused.value)) == (name == "link")

    @pytest.mark.parametrize("last", ["Relu", "F0"])
    def test_functions_that_make_too_many_nodes(self, last, tmp_path):
        """Forty that each call the next one twice: 10¹² nodes, or none where it has no end."""
        model = chain().model()
        model.opset_import.add(domain="own", version=1)
        names = [*(f"F{number}" for number in range(40)), last]
        for name, called in pairwise(names):
            domain = "" if called == "Relu" else "own"
            nodes = [
                helper.make_node(called, ["i"], ["m"], domain=domain),
                helper.make_node(called, ["m"], ["o"], domain=domain),
            ]
            opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
            made = helper.make_function("own", name, ["i"], ["o"], nodes, opsets)
            model.functions.append(made)
        model.graph.node.append(helper.make_node("F0", ["r"], ["more"], domain="own"))
        assert expanded_size(model) == (None if last == "F0" else 4 + 2**40)
        onnx.save(model, tmp_path / "m.onnx")
        with refuses("too-many-nodes"):
            open_onnx(tmp_path / "m.onnx")

    @pytest.mark.parametrize("inside", [False, True])
    def test_convolutions_of_no_group(self, tmp_path, inside):
        """Also where the convolution is in a branch."""
        model = chain().model()
        model.graph.node[0].attribute.append(helper.make_attribute("group", 0))
        if inside:
            conv = model.graph.node[0]
            made, conv.output[0] = conv.output[0], "taken"
            value = helper.make_tensor_value_info("taken", TensorProto.FLOAT, None)
            branch = helper.make_graph([conv], "branch", [], [value])
            choice = helper.make_node("If", ["yes"], [made], then_branch=branch, else_branch=branch)
            model.graph.node[0].CopyFrom(choice)
            model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
        onnx.save(model, tmp_path / "m.onnx")
        with refuses("does-not-run"):
            open_onnx(tmp_path / "m.onnx")

    def test_a_type_that_onnx_runtime_does_not_compute_in(self, tmp_path):
        """The file is as ONNX defines it."""
        net = Net(dtype=np.float64)
        net.conv("x", "y")
        onnx.save(net.model(), tmp_path / "m.onnx")
        with refuses("does-not-run") as caught:
            open_onnx(tmp_path / "m.onnx")
        assert "float32" in caught.value.hint

    @pytest.mark.parametrize("shape", [(), (1,), (2, 4), (3, 3)])
    def test_a_bias_that_is_not_one_value_per_channel(self, tmp_path, shape):
        model = chain().model()
        model.graph.node[0].input.append("b")
        bias = np.zeros(shape, np.float32)
        model.graph.initializer.append(numpy_helper.from_array(bias, "b"))
        onnx.save(model, tmp_path / "m.onnx")
        with refuses("does-not-run"):
            open_onnx(tmp_path / "m.onnx")


@pytest.mark.parametrize("place", ["op_type", "input", "initializer", "attribute", "key"])
def test_text_that_is_no_utf8(tmp_path, place):
    model = small_cnn()
    known = "marked"
    if place == "op_type":
        model.graph.node[0].op_type = known
    elif place == "input":
        model.graph.node[0].input[0] = known
    elif place == "initializer":
        model.graph.initializer[0].name = known
    elif place == "attribute":
        model.graph.node[0].attribute[0].name = known
    else:
        model.metadata_props.add(key=known, value="x")
    path = tmp_path / "net.onnx"
    path.write_bytes(model.SerializeToString().replace(known.encode(), b"\xff\xfe\xff\xfe\xff\xfe"))

    with pytest.raises(InputError) as refused:
        load(path)

    assert refused.value.code in ("damaged-file", "not-a-model")


class TestForm:
    """What ONNX Runtime takes and the checker does not, beside the order of the nodes."""

    @staticmethod
    def opened(model, tmp_path):
        onnx.save(model, tmp_path / "m.onnx")
        file = open_onnx(tmp_path / "m.onnx")
        onnx.checker.check_model(file.model, full_check=True)
        assert_same_outputs(chain().model(), file.model, X)
        return file

    def test_shapes_that_the_nodes_contradict(self, tmp_path):
        model = chain().model()
        dims = model.graph.output[0].type.tensor_type.shape.dim
        right = [dim.dim_value for dim in dims]
        dims[1].dim_value = 99
        file = self.opened(model, tmp_path)
        found = file.model.graph.output[0].type.tensor_type.shape.dim
        assert [dim.dim_value for dim in found] == right
        assert len(file.repairs) == 1

    def test_outputs_without_a_shape(self, tmp_path):
        model = chain().model()
        model.graph.output[0].type.tensor_type.ClearField("shape")
        file = self.opened(model, tmp_path)
        assert len(file.model.graph.output[0].type.tensor_type.shape.dim) == 4
        assert len(file.repairs) == 1

    def test_a_graph_without_a_name(self, tmp_path):
        model = chain().model()
        model.graph.name = ""
        assert self.opened(model, tmp_path).model.graph.name


class TestBranches:
    """If nodes of a constant condition, one inside the other, around one that the data decide.

    ONNX Runtime's own optimizer crashes on them.
    """

    @staticmethod
    def model():
        def graph(name, *nodes):
            return helper.make_graph(
                nodes, name, [], [onnx.ValueInfoProto(name=nodes[-1].output[0])]
            )

        def choice(condition, made, yes, no):
            branches = {"then_branch": graph("t", *yes), "else_branch": graph("e", *no)}
            return helper.make_node("If", [condition], [made], f"if.{made}", **branches)

        def conv(source, made):
            return helper.make_node("Conv", [source, "w"], [made], "conv", pads=[1] * 4)

        net = Net()
        net.constant("w", (6, 6, 3, 3))
        net.constant("yes", np.array(True))
        net.constant("no", np.array(False))
        net.constant("most", np.float32(99))
        net.node("ReduceMax", "x", "top", keepdims=0)
        net.node("Less", "top most", "small")
        free = choice(
            "small", "kept",
            [helper.make_node("Neg", ["same"], ["n"])], [helper.make_node("Abs", ["same"], ["a"])],
        )  # fmt: skip
        inner = choice("no", "inner", [conv("same", "c")], [conv("same", "c"), free])
        net.nodes += [
            choice("yes", "b", [conv("x", "same"), inner], [helper.make_node("Exp", ["x"], ["o"])])
        ]
        net.node("Relu", "b", "r")
        net.node("Add", "r b", "y")
        model = net.model()
        model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", 1, ["n", 6, 9, 10]))
        return model

    def test_stand_in_the_place_of_their_condition(self):
        model = self.model()
        result = without_constant_branches(model)
        kinds = [node.op_type for node in result.graph.node]
        assert [kinds.count(kind) for kind in ("If", "Conv", "Exp")] == [1, 2, 0]
        onnx.checker.check_model(result, full_check=True)
        for x in (X, X + 100):
            (expected,) = session(model, optimization="none").run(None, {"x": x})
            (got,) = session(result, optimization="none").run(None, {"x": x})
            np.testing.assert_array_equal(got, expected)

    def test_only_those_that_hold_a_wanted_node(self):
        model = self.model()
        assert without_constant_branches(model, wanted=lambda node: node.op_type == "Gemm") is model

    @pytest.mark.parametrize(("place", "taken"), [(1, True), (-3, True), (0, False)])
    def test_of_a_condition_on_one_size(self, place, taken):
        def branch(kind):
            node = helper.make_node(kind, ["x"], [kind])
            value = helper.make_tensor_value_info(kind, 1, ["n", 6, 9, 10])
            return helper.make_graph([node], kind, [], [value])

        net = Net()
        net.node("Shape", "x", "sizes")
        net.constant("place", np.int64(place))
        net.constant("six", np.int64(6))
        net.node("Gather", "sizes place", "size")
        net.node("Equal", "size six", "same")
        net.node("If", "same", "i", then_branch=branch("Neg"), else_branch=branch("Abs"))
        net.conv("i", "y", (6, 8))
        model = net.model(inputs={"x": ("n", 6, 9, 10)})
        result = without_constant_branches(model)
        assert ("Neg" if taken else "If") in {node.op_type for node in result.graph.node}
        assert_same_outputs(model, result, X, tolerance=0)

    @pytest.mark.parametrize("batch", [2, "n"])
    def test_of_a_condition_on_a_shape(self, batch):
        def branch(kind):
            node = helper.make_node(kind, ["x"], [kind])
            value = helper.make_tensor_value_info(kind, 1, [batch, 6, 9, 10])
            return helper.make_graph([node], kind, [], [value])

        net = Net()
        net.node("Shape", "x", "size", start=0, end=1)
        net.constant("two", np.int64([2]))
        net.node("Equal", "size two", "same")
        net.node("If", "same", "i", then_branch=branch("Neg"), else_branch=branch("Abs"))
        net.conv("i", "y", (6, 8))
        model = net.model(inputs={"x": (batch, 6, 9, 10)})
        result = without_constant_branches(model)
        assert ("Neg" if batch == 2 else "If") in {node.op_type for node in result.graph.node}
        assert_same_outputs(model, result, X, tolerance=0)
