"""Graphs that ask for more memory than any sound one: refused before any is taken."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_nets import floats, graph, node

from dsconvert.base.errors import InputError
from dsconvert.base.size_bounds import VARIABLE
from dsconvert.deploy.runtimes.unknown_files import check_runs_apart
from dsconvert.formats.onnx.open import open_onnx
from dsconvert.formats.onnx.sizes import check_sizes
from dsconvert.workflows.model_files import open_model

KERNEL = floats(4, 3, 3, 3)
SHAPE = ("n", 3, 8, 8)


def branches():
    def branch(name, size):
        nodes = [node("ConstantOfShape", f"{name}_n", f"{name}_y")]
        stored = [numpy_helper.from_array(np.int64([size]), f"{name}_n")]
        given = [helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, ["k"])]
        return helper.make_graph(nodes, name, [], given, stored)

    return [
        node("ReduceMax", "x", "m", keepdims=0),
        node("Cast", "m", "yes", to=TensorProto.BOOL),
        node("If", "yes", "y", then_branch=branch("large", 10**10), else_branch=branch("small", 1)),
    ]


ASKING = {
    "pads of a convolution": ([node("Conv", "x w", "y", pads=[1, 1, 10**6, 1])], {"w": KERNEL}),
    "dilations": (
        [node("Conv", "x w", "y", pads=[2**20] * 4, dilations=[2**19] * 2)],
        {"w": KERNEL},
    ),
    "strides of a transposed one": (
        [node("ConvTranspose", "x w", "y", strides=[2**20, 2])],
        {"w": floats(3, 4, 2, 2)},
    ),
    "pads of a pool": (
        [node("MaxPool", "x", "y", kernel_shape=[2**20] * 2, pads=[2**20 - 1] * 4)],
        {},
    ),
    "Pad": ([node("Pad", "x p", "y")], {"p": np.int64([0, 0, 0, 0, 0, 0, 10**6, 10**6])}),
    "Resize": ([node("Resize", "x roi s", "y")],
               {"roi": np.float32([]), "s": np.float32([1, 1, 1e5, 1e5])}),
    "Tile": ([node("Tile", "x r", "y")], {"r": np.int64([1, 1, 10**5, 10**5])}),
    "Expand": ([node("Expand", "x e", "y")], {"e": np.int64([10**8, 1, 3, 8, 8])}),
    "ConstantOfShape": (
        [node("ConstantOfShape", "long", "z"), node("ReduceMax", "z", "s", keepdims=0),
         node("Add", "x s", "y")],
        {"long": np.int64([10**8])},
    ),
    "a branch": (branches(), {}),
}  # fmt: skip


def refused(model, tmp_path):
    path = tmp_path / "net.onnx"
    onnx.save(model, path)
    for way in (open_onnx, check_runs_apart):
        with pytest.raises(InputError) as caught:
            way(path)
        assert caught.value.code == "tensor-too-large"
    return path


@pytest.mark.parametrize("name", ASKING)
def test_one_number_asks_for_it(name, tmp_path):
    nodes, weights = ASKING[name]
    refused(graph(nodes, SHAPE, "y", **weights), tmp_path)


def test_the_input_asks_for_it(tmp_path):
    nodes = [node("Conv", "x w", "y")]
    for shape in ((10**7, 3, 8, 8), ("n", 3, 10**6, 10**6)):
        refused(graph(nodes, shape, "y", w=KERNEL), tmp_path)


def test_what_a_fixed_batch_takes_is_not_told_of_one_sample(tmp_path):
    for batch, told in ((16, "batch of 16"), ("n", "one sample")):
        side = 400 if batch == 16 else 1600
        model = graph(
            [node("Conv", "x w", "y")], (batch, 3, side, side), "y", w=floats(64, 3, 3, 3)
        )
        with pytest.raises(InputError, match=told) as caught:
            check_sizes(model, tmp_path, "net")
        assert caught.value.code == "tensor-too-large"


def test_a_number_that_wraps_around(tmp_path):
    """Sizes beyond 64 bits come out small: 8 + 2·(2⁶³ − 1) rows are six."""
    model = graph([node("Conv", "x w", "y")], SHAPE, "y", w=KERNEL)
    pads = helper.make_attribute("pads", [2**63 - 1, 0, 2**63 - 1, 0])
    model.graph.node[0].attribute.append(pads)
    model.graph.output[0].type.tensor_type.shape.dim[2].dim_value = 4
    with pytest.raises(InputError) as caught:
        check_sizes(model, tmp_path, "net")
    assert caught.value.code == "tensor-too-large"


def test_of_a_graph_in_memory():
    nodes, weights = ASKING["Tile"]
    with pytest.raises(InputError) as caught:
        open_model(graph(nodes, SHAPE, "y", **weights))
    assert caught.value.code == "tensor-too-large"


def test_who_means_it_may_have_it(tmp_path, monkeypatch):
    model = graph([node("Conv", "x w", "y", pads=[1, 1, 600_000, 1])], SHAPE, "y", w=KERNEL)
    path = refused(model, tmp_path)
    monkeypatch.setenv(VARIABLE, "1GiB")
    assert open_onnx(path).model.graph.node
    monkeypatch.setenv(VARIABLE, "much")
    with pytest.raises(InputError) as caught:
        open_onnx(path)
    assert caught.value.code == "bad-size"


def test_a_large_image_is_no_fault(tmp_path):
    path = tmp_path / "large.onnx"
    nodes = [node("Conv", "x w", "y", pads=[1, 1, 1, 1])]
    onnx.save(graph(nodes, ("n", 3, 1024, 2048), "y", w=floats(64, 3, 3, 3)), path)
    assert open_onnx(path).model.graph.node


def test_sizes_that_wrap_around_are_not_taken_for_nothing(tmp_path):
    model = graph([node("Conv", "x w", "y")], SHAPE, "y", w=floats(64, 3, 5, 5))
    model.graph.initializer[0].dims[:] = [2**32, 2**32, 5, 5]
    model.graph.initializer[0].raw_data = b""
    path = tmp_path / "net.onnx"
    onnx.save(model, path)
    with pytest.raises(InputError):
        open_onnx(path)
