"""Constants that a graph expands to the number of its samples, and what else may be computed."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_graphs import assert_same, assert_same_in_tflite
from onnx_nets import floats, graph, node
from refusals import refuses

from dsconvert.models.onnx_import import import_onnx
from dsconvert.workflows.finite_weights import check_weights
from dsconvert.workflows.model_files import open_model

CROP = {"mode": "linear", "coordinate_transformation_mode": "tf_crop_and_resize"}
X = floats(3, 3, 6, 6, seed=1)


def expanded(last, dtype=np.float32, **weights):
    """A constant of (1, 1, 1, 6), expanded to (n, 1, 6, 6), which `last` makes y of."""
    nodes = [
        node("Shape", "x", "n", start=0, end=1),
        node("Concat", "n rest", "sizes", axis=0),
        node("Expand", "row sizes", "e"),
        *last,
    ]
    row = np.linspace(-1, 1, 6).reshape(1, 1, 1, 6).astype(dtype)
    rest = np.array([1, 6, 6])
    return graph(nodes, ["n", 3, 6, 6], "y", row=row, rest=rest, **weights)


@pytest.mark.parametrize(
    "last",
    [
        [node("Concat", "x e", "y", axis=1)],
        [node("Mul", "x e", "y")],
        [node("Conv", "x w", "c", pads=[1, 1, 1, 1]), node("Concat", "c e", "y", axis=1)],
    ],
)
def test_a_constant_for_each_sample(last):
    weights = {"w": floats(4, 3, 3, 3)} if len(last) > 1 else {}
    assert_same(expanded(last, **weights), [X])
    assert_same_in_tflite(expanded(last, **weights), [X])


def test_a_grid_for_each_sample():
    grid = np.stack(np.meshgrid(*[np.linspace(-0.9, 0.7, 5)] * 2), -1)[None].astype(np.float32)
    nodes = [
        node("Shape", "x", "n", start=0, end=1),
        node("Concat", "n rest", "sizes", axis=0),
        node("Expand", "grid sizes", "g"),
        node("GridSample", "x g", "y"),
    ]
    proto = graph(nodes, ["n", 3, 6, 6], "y", grid=grid, rest=np.array([5, 5, 2]))
    assert_same(proto, [X])


def test_a_mask_for_each_sample():
    last = [node("Cast", "e", "b", to=9), node("Where", "b x x2", "y"), node("Neg", "x", "x2")]
    assert_same(expanded([last[0], last[2], last[1]], np.int64), [X])


@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose"])
def test_a_bias_that_is_computed(kind):
    nodes = [
        node("ReduceMean", "x", "b", axes=[0, 2, 3], keepdims=0),
        node(kind, "x w b", "y", pads=[1, 1, 1, 1]),
    ]
    assert_same(graph(nodes, [2, 3, 6, 6], "y", w=floats(3, 3, 3, 3)), [X[:2]])


def test_a_scale_that_is_computed_is_named():
    nodes = [
        node("ReduceMean", "x", "s", axes=[0, 2, 3], keepdims=0),
        node("BatchNormalization", "x s b b v", "y"),
    ]
    proto = graph(nodes, [1, 3, 6, 6], "y", b=floats(3), v=np.ones(3, np.float32))
    with refuses("operator-not-imported") as refused:
        import_onnx(proto)
    assert "'s' is computed" in str(refused.value)


def test_a_norm_by_root_mean_square_over_the_width_of_an_image():
    nodes = [node("Conv", "x w", "c"), node("RMSNormalization", "c s", "y", axis=-1)]
    weights = {"w": floats(4, 3, 1, 1), "s": floats(6, seed=2)}
    assert_same(graph(nodes, ["n", 3, 6, 6], "y", opset=23, ir=11, **weights), [X])


def test_a_crop_of_a_free_number_of_images():
    nodes = [node("Conv", "x w", "c"), node("Resize", "c roi scales", "y", **CROP)]
    roi = np.array([0, 0, 0.2, 0.1, 1, 1, 0.8, 0.9], np.float32)
    weights = {"w": floats(4, 3, 1, 1), "roi": roi, "scales": np.array([1, 1, 1.5, 1.5], "f4")}
    assert_same(graph(nodes, ["n", 3, 6, 6], "y", **weights), [X])


@pytest.mark.parametrize("causal", [0, 1])
def test_attention_of_onnx(causal):
    nodes = [
        node("MatMul", "x q", "xq"),
        node("Attention", "xq x x", "a", q_num_heads=2, kv_num_heads=2, is_causal=causal),
        node("MatMul", "a o", "y"),
    ]
    weights = {"q": floats(8, 8), "o": floats(8, 4, seed=1)}
    proto = graph(nodes, ["n", 5, 8], "y", opset=23, ir=11, **weights)
    assert_same(proto, [floats(3, 5, 8, seed=2)])


def test_an_output_that_is_listed_twice_is_one():
    proto = graph([node("Conv", "x w", "y")], ["n", 3, 6, 6], "y", w=floats(4, 3, 1, 1))
    proto.graph.output.append(proto.graph.output[0])
    assert len(import_onnx(proto).model.outputs) == 1


def test_an_infinite_mask_is_no_broken_weight(tmp_path):
    """The import holds it in a layer; weights of a training that went wrong are refused still."""
    mask = np.where(np.tril(np.ones((64, 64))), 0, -np.inf).astype(np.float32)
    nodes = [
        node("Conv", "x w", "c"),
        node("Add", "c mask", "m"),
        node("Softmax", "m", "y", axis=-1),
    ]
    proto = graph(nodes, ["n", 3, 64, 64], "y", w=floats(4, 3, 1, 1), mask=mask, opset=12)
    model = import_onnx(proto).model
    assert any(np.isinf(one.numpy()).any() for one in model.weights)
    check_weights(open_model(model))
    model.get_layer("Conv_c").kernel.assign(model.get_layer("Conv_c").kernel * np.inf)
    with refuses("not-finite"):
        check_weights(open_model(model))


def test_a_constant_that_nodes_make_nan_is_the_same_for_every_size():
    """It differs from itself, and was called one that depends on the free sizes."""
    nodes = [node("Div", "zero zero", "w"), node("Add", "x w", "y")]
    model = graph(nodes, ["n", 3, "h", "w_"], "y", zero=np.zeros((3, 1, 1), np.float32))
    assert_same(model, [X])
