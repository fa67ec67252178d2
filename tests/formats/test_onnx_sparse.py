"""Sparse constants of .onnx files: read as if all their values were stored."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx_native import Net, X, assert_same_outputs, exactly, kinds, reasons
from refusals import refuses

from dsconvert.formats.onnx.open import load, open_onnx


def sparse_of(array, name, *, counted=True):
    """An array by its values that are not zero, and their places: counted through, or by axis."""
    places = np.flatnonzero(array) if counted else np.argwhere(array)
    return helper.make_sparse_tensor(
        numpy_helper.from_array(array[array != 0], name),
        numpy_helper.from_array(places.astype(np.int64), f"{name}.places"),
        array.shape,
    )


def pruned(form, **given):
    """Two convolutions, the second of which has half of its weights: dense, or in a sparse form."""
    net = Net()
    net.conv("x", "a")
    net.node("Relu", "a", "r")
    net.conv("r", "y", (8, 7), name="b")
    net.weights[-2].name, net.nodes[-1].input[1] = "b.kernel", "b.kernel"
    (kernel,) = (one for one in net.weights if one.name == "b.kernel")
    values = numpy_helper.to_array(kernel).copy()
    values[np.abs(values) < 0.08] = 0
    if form == "dense":
        kernel.CopyFrom(numpy_helper.from_array(values, "b.kernel"))
        return net.model()
    net.weights.remove(kernel)
    sparse = sparse_of(values, "b.kernel", **given)
    if form == "constant":
        node = helper.make_node("Constant", [], ["b.kernel"], sparse_value=sparse)
        net.nodes.insert(0, node)
    model = net.model()
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", 1, ["n", 7, 5, 6]))
    if form == "initializer":
        model.graph.sparse_initializer.append(sparse)
    return model


@pytest.mark.parametrize(
    ("form", "counted"), [("constant", True), ("initializer", True), ("initializer", False)]
)
def test_are_weights_as_others_are(form, counted, tmp_path):
    onnx.save(pruned(form, counted=counted), tmp_path / "m.onnx")
    read = open_onnx(tmp_path / "m.onnx").model
    assert reasons(read) == {"a": "", "b": ""}
    assert_same_outputs(pruned("dense"), read, X)
    exactly(read, "b")


def test_of_a_branch(tmp_path):
    net = Net()
    net.conv("x", "a")
    value = np.zeros((8, 1, 1), np.float32)
    value[3] = 2
    sparse = helper.make_node("Constant", [], ["s"], sparse_value=sparse_of(value, "s"))
    branch = helper.make_graph(
        [sparse, helper.make_node("Add", ["a", "s"], ["o"])],
        "b",
        [],
        [onnx.ValueInfoProto(name="o")],
    )
    net.constant("yes", np.array(True))
    net.node("If", "yes", "y", then_branch=branch, else_branch=branch)
    onnx.save(net.model(), tmp_path / "m.onnx")
    read = load(tmp_path / "m.onnx")
    assert "sparse" not in str(read.graph)
    assert_same_outputs(net.model(), read, X)


@pytest.mark.parametrize("place", [10**6, -1])
def test_places_outside_are_refused(place, tmp_path):
    model = pruned("initializer")
    places = model.graph.sparse_initializer[0].indices
    values = numpy_helper.to_array(places).copy()
    values[0] = place
    places.CopyFrom(numpy_helper.from_array(values, places.name))
    onnx.save(model, tmp_path / "m.onnx")
    with refuses("damaged-file") as caught:
        load(tmp_path / "m.onnx")
    assert "'b.kernel'" in caught.value.message


def test_a_few_bytes_that_stand_for_gigabytes_are_refused(tmp_path):
    model = pruned("initializer")
    model.graph.sparse_initializer[0].dims[0] = 10**9
    onnx.save(model, tmp_path / "m.onnx")
    with refuses("tensor-too-large"):
        load(tmp_path / "m.onnx")


def test_dense_ones_stay(tmp_path):
    onnx.save(pruned("dense"), tmp_path / "m.onnx")
    assert kinds(load(tmp_path / "m.onnx")) == ["Conv", "Relu", "Conv"]
