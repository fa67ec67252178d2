"""ONNX graphs in Keras: layout, batches, errors.

`import_onnx` compares every model with ONNX Runtime before it returns it, so a test that imports
has compared; `assert_same` does it once more from outside. Operators one by one are in
test_onnx_import_layers.py, the way back is in test_onnx_write_back.py.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from onnx_graphs import assert_same, run
from onnx_nets import check_write_back, floats, graph, kinds, node, small_cnn
from refusals import refuses

from dsconvert.models.onnx_import import import_onnx

# --- layout -------------------------------------------------------------------------------------


def test_a_cnn_has_no_transpose():
    imported = assert_same(small_cnn(), [floats(1, 3, 8, 8)])
    assert kinds(imported.model) == Counter(["Conv2D", "ReLU", "MaxPooling2D", "Reshape", "Dense"])
    assert imported.model.input_shape == (None, 8, 8, 3)
    assert imported.input_axes == ((0, 2, 3, 1),)
    assert imported.output_axes == ((0, 1),)
    assert imported.model.get_layer("Conv_c").padding == "same"


@pytest.mark.parametrize("activation", ["Relu", "Dropout", "Identity"])
def test_a_dense_layer_behind_an_activation_takes_the_elements_as_they_are_stored(activation):
    nodes = [
        node("Conv", "x w", "c"),
        node("Flatten", "c", "f"),
        node(activation, "f", "a"),
        node("MatMul", "a v", "y"),
    ]
    model = graph(nodes, [2, 3, 4, 5], "y", w=floats(4, 3, 1, 1), v=floats(80, 6, seed=1))
    imported = assert_same(model, [floats(2, 3, 4, 5)])
    assert {"Permute", "Transpose", "Take"}.isdisjoint(kinds(imported.model))


def test_flattened_images_that_others_read_are_in_the_order_of_onnx():
    nodes = [
        node("Conv", "x w", "c"),
        node("Flatten", "c", "f"),
        node("Gemm", "f v", "g"),
        node("Add", "f e", "y"),
    ]
    model = graph(
        nodes, [1, 3, 4, 5], "g y", w=floats(4, 3, 1, 1), v=floats(80, 6), e=floats(80, seed=2)
    )
    imported = assert_same(model, [floats(1, 3, 4, 5)])
    assert kinds(imported.model)["Permute"] == 1


def test_a_graph_that_begins_in_nhwc_stays_in_it():
    nodes = [
        node("Transpose", "x", "t", perm=[0, 3, 1, 2]),
        node("Conv", "t w", "c"),
        node("Transpose", "c", "y", perm=[0, 2, 3, 1]),
    ]
    model = graph(nodes, ["n", 6, 7, 3], "y", w=floats(4, 3, 3, 3))
    imported = assert_same(model, [floats(2, 6, 7, 3)])
    assert kinds(imported.model) == Counter(["Conv2D"])
    assert imported.input_axes == imported.output_axes == ((0, 1, 2, 3),)


def test_an_image_output_comes_as_it_is_stored():
    nodes = [node("Conv", "x w", "c"), node("Sigmoid", "c", "y")]
    model = graph(nodes, [1, 3, 6, 7], "y c", w=floats(4, 3, 3, 3))
    imported = assert_same(model, [floats(1, 3, 6, 7)])
    assert imported.output_axes == ((0, 2, 3, 1), (0, 2, 3, 1))
    assert [tuple(x.shape) for x in imported.model.outputs] == [(None, 4, 5, 4)] * 2


def test_channels_are_shuffled_with_one_transpose():
    nodes = [
        node("Conv", "x w", "c"),
        node("Reshape", "c s", "a"),
        node("Transpose", "a", "t", perm=[0, 2, 1, 3, 4]),
        node("Reshape", "t z", "m"),
        node("Conv", "m v", "y", group=2),
    ]
    model = graph(
        nodes,
        [1, 3, 6, 7],
        "y",
        w=floats(8, 3, 1, 1),
        v=floats(6, 4, 1, 1, seed=1),
        s=np.array([1, 2, 4, 6, 7]),
        z=np.array([1, 8, 6, 7]),
    )
    imported = assert_same(model, [floats(1, 3, 6, 7)])
    assert kinds(imported.model)["Permute"] == 1
    assert imported.model.input_shape[0] is None


def test_squeeze_and_excitation_needs_no_transpose():
    nodes = [
        node("Conv", "x w", "c"),
        node("GlobalAveragePool", "c", "g"),
        node("Flatten", "g", "f"),
        node("Gemm", "f a", "h"),
        node("Sigmoid", "h", "s"),
        node("Unsqueeze", "s i", "u"),
        node("Mul", "c u", "m"),
        node("Conv", "m v", "y"),
    ]
    model = graph(
        nodes,
        [1, 3, 6, 7],
        "y",
        w=floats(8, 3, 3, 3),
        a=floats(8, 8, seed=1),
        v=floats(2, 8, 1, 1, seed=2),
        i=np.array([2, 3]),
    )
    imported = assert_same(model, [floats(1, 3, 6, 7)])
    assert {"Permute", "Transpose"}.isdisjoint(kinds(imported.model))


def test_a_detection_head_needs_no_transpose():
    """Transpose to NHWC, then Reshape to (N, boxes, values): what is stored already."""
    nodes = [
        node("Conv", "x w", "c"),
        node("Transpose", "c", "t", perm=[0, 2, 3, 1]),
        node("Reshape", "t s", "r"),
        node("Softmax", "r", "y", axis=-1),
    ]
    model = graph(nodes, [1, 3, 6, 7], "y", w=floats(8, 3, 1, 1), s=np.array([1, -1, 4]))
    imported = assert_same(model, [floats(1, 3, 6, 7)])
    assert kinds(imported.model) == Counter(["Conv2D", "Reshape", "Softmax"])
    assert imported.model.output_shape == (None, 84, 4)


@pytest.mark.parametrize(("rank", "axes"), [(3, (0, 2, 1)), (5, (0, 2, 3, 4, 1))])
def test_signals_and_volumes_are_channels_last_too(rank, axes):
    size = [6, 5, 4][: rank - 2]
    nodes = [node("Conv", "x w", "c"), node("Relu", "c", "y")]
    model = graph(nodes, [1, 3, *size], "y", w=floats(4, 3, *[2] * (rank - 2)))
    imported = assert_same(model, [floats(1, 3, *size)])
    assert imported.input_axes == imported.output_axes == (axes,)
    assert kinds(imported.model) == Counter([f"Conv{rank - 2}D", "ReLU"])


def test_axes_of_size_one_are_moved_by_a_reshape():
    nodes = [node("Reshape", "x s", "r"), node("Conv", "r w", "y")]
    model = graph(nodes, ["n", 42], "y", w=floats(4, 1, 3, 3), s=np.array([-1, 1, 6, 7]))
    imported = assert_same(model, [floats(2, 42)])
    assert {"Permute", "Transpose"}.isdisjoint(kinds(imported.model))


def test_a_value_is_transposed_once_for_all_who_read_it():
    nodes = [
        node("Conv", "x w", "c"),
        node("MatMul", "c v", "m"),
        node("MatMul", "c u", "k"),
        node("Add", "m k", "y"),
    ]
    model = graph(
        nodes, [1, 3, 6, 7], "y", w=floats(4, 3, 1, 1), v=floats(7, 5), u=floats(7, 5, seed=1)
    )
    imported = assert_same(model, [floats(1, 3, 6, 7)])
    assert kinds(imported.model)["Permute"] == 2  # once for both, and the output back


def test_inputs_that_nothing_reads_stay_inputs():
    model = graph([node("Relu", "x", "y")], ["n", 3], "y", inputs="x z")
    imported = import_onnx(model)
    assert imported.input_names == ("x", "z")
    assert len(imported.model.inputs) == 2


# --- names, padding, what stays exact -----------------------------------------------------------


def test_layers_are_called_as_the_nodes():
    model = small_cnn()
    model.graph.node[0].name = "features/0:conv 1"
    model.graph.node[1].name = ""
    model.graph.node[2].name = "features_0_conv_1"
    names = [layer.name for layer in import_onnx(model).model.layers]
    assert names == ["x", "features_0_conv_1", "r", "features_0_conv_1_1", "Flatten_f", "Gemm_y"]


def test_pads_that_are_not_tensorflows_are_a_layer_of_zeros():
    nodes = [node("Conv", "x w", "y", strides=[2, 2], pads=[1, 1, 1, 1])]
    even = import_onnx(graph(nodes, [1, 3, 8, 8], "y", w=floats(4, 3, 3, 3)))
    odd = import_onnx(graph(nodes, [1, 3, 9, 9], "y", w=floats(4, 3, 3, 3)))
    free = import_onnx(graph(nodes, [1, 3, "h", "w_"], "y", w=floats(4, 3, 3, 3)))
    assert kinds(odd.model) == Counter(["Conv2D"])
    for imported in (even, free):
        assert kinds(imported.model) == Counter(["ZeroPadding2D", "Conv2D"])


@pytest.mark.parametrize(("activation", "layer"), [("Relu", "ZeroPadding2D"), ("Tanh", "Pad")])
def test_max_pools_are_padded_with_what_is_never_the_largest(activation, layer):
    """Zeros are only where nothing is below them; else the edge is mirrored."""
    nodes = [
        node(activation, "x", "a"),
        node("MaxPool", "a", "y", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
    ]
    model = graph(nodes, [1, 3, 8, 8], "y")
    imported = assert_same(model, [-np.abs(floats(1, 3, 8, 8))])
    assert kinds(imported.model)[layer] == 1


def test_a_bias_that_is_an_add_of_its_own_trains(tmp_path):
    nodes = [
        node("Conv", "x w", "c"),
        node("Add", "c b", "a"),
        node("GlobalAveragePool", "a", "g"),
        node("Flatten", "g", "f"),
        node("MatMul", "f v", "m"),
        node("Add", "d m", "y"),
    ]
    model = graph(
        nodes,
        [1, 3, 6, 7],
        "y",
        w=floats(4, 3, 1, 1),
        b=floats(4, 1, 1, seed=1),
        v=floats(4, 5),
        d=floats(1, 5),
    )
    imported = assert_same(model, [floats(1, 3, 6, 7)])
    assert "Add" not in kinds(imported.model)
    assert len(imported.model.trainable_weights) == 4
    check_write_back(imported, [floats(1, 3, 6, 7)])


def test_a_scale_that_is_no_bias_stays_an_operation():
    nodes = [node("Conv", "x w", "c"), node("Add", "c b", "a"), node("Mul", "a c", "y")]
    model = graph(nodes, [1, 3, 6, 7], "y", w=floats(4, 3, 1, 1), b=floats(4, 1, 1, seed=1))
    imported = assert_same(model, [floats(1, 3, 6, 7)])
    assert len(imported.model.weights) == 1


# --- free and fixed sizes -----------------------------------------------------------------------


def test_a_batch_that_is_written_into_reshapes_becomes_free():
    nodes = [
        node("Conv", "x w", "c"),
        node("Reshape", "c s", "r"),
        node("Gemm", "r v", "g"),
        node("Reshape", "g t", "y"),
    ]
    model = graph(
        nodes,
        [1, 3, 4, 5],
        "y",
        w=floats(4, 3, 1, 1),
        v=floats(80, 6),
        s=np.array([1, 80]),
        t=np.array([1, 2, 3]),
    )
    imported = assert_same(model, [floats(1, 3, 4, 5)])
    assert imported.model.input_shape[0] is None
    assert imported.model.output_shape == (None, 2, 3)
    assert imported.notes == ()


def test_a_batch_that_belongs_together_stays_fixed_and_it_is_said():
    nodes = [
        node("ReduceMean", "x", "m", axes=[0]),
        node("Sub", "x m", "y"),
    ]
    model = graph(nodes, [4, 3], "y")
    imported = assert_same(model, [floats(4, 3)])
    assert imported.model.input_shape == (4, 3)
    (note,) = imported.notes
    assert "batch of 4 stays fixed" in note
    assert "'y'" in note


def test_real_inputs_of_a_batch_that_stays_fixed_are_shared_out():
    nodes = [node("ReduceMean", "x", "m", axes=[0]), node("Sub", "x m", "y")]
    imported = import_onnx(graph(nodes, [4, 3], "y"), inputs=[floats(11, 3)])
    assert imported.model.input_shape == (4, 3)


def test_a_batch_that_is_called_free_and_is_not_becomes_so():
    """Exporters write a constant batch into a Reshape behind a free one."""
    nodes = [node("Conv", "x w", "c"), node("Reshape", "c s", "y")]
    model = graph(nodes, ["n", 3, 4, 5], "y", w=floats(4, 3, 1, 1), s=np.array([1, 4, 20]))
    imported = assert_same(model, [floats(1, 3, 4, 5)])
    assert imported.model.input_shape == (None, 4, 5, 3)


def test_sizes_that_are_computed_from_the_inputs_are_folded():
    """Shape, Gather, Unsqueeze, Concat, Reshape: what PyTorch writes for a view."""
    nodes = [
        node("Conv", "x w", "c"),
        node("Shape", "c", "s"),
        node("Gather", "s zero", "n"),
        node("Unsqueeze", "n axis", "u"),
        node("Concat", "u rest", "t", axis=0),
        node("Reshape", "c t", "y"),
    ]
    model = graph(
        nodes,
        ["n", 3, "h", "k"],
        "y",
        w=floats(4, 3, 1, 1),
        zero=np.array(0),
        axis=np.array([0]),
        rest=np.array([4, -1]),
    )
    imported = assert_same(model, [floats(2, 3, 5, 6)])
    assert imported.model.input_shape == (None, None, None, 3)
    assert "Permute" not in kinds(imported.model)


def test_real_inputs_decide_sizes_and_are_compared():
    nodes = [node("Conv", "x w", "c"), node("Flatten", "c", "f"), node("Gemm", "f v", "y")]
    model = graph(nodes, ["n", 3, "h", "k"], "y", w=floats(2, 3, 1, 1), v=floats(60, 4))
    imported = import_onnx(model, inputs=[floats(2, 3, 5, 6)])
    assert imported.model.input_shape == (None, 5, 6, 3)
    assert [note for note in imported.notes if "axis 2 of the input 'x' is fixed to 5" in note]
    with refuses("does-not-run"):
        import_onnx(model, inputs=[floats(2, 3, 4, 6)])
    with refuses("shape-mismatch"):
        import_onnx(model, inputs=[floats(2, 3, 4)])


# --- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize("factors", [(2, 2), (3, 3), (4, 2)])
def test_a_bilinear_resize_of_any_size(factors):
    """Keras' bilinear layer wants to know height and width; the drawing does without."""
    proto = graph(
        [
            node("Conv", "x w", "a", pads=[1, 1, 1, 1]),
            node("Resize", "a none scales", "y", mode="linear"),
        ],
        ["n", 3, "h", "w"],
        "y",
        w=floats(4, 3, 3, 3),
        none=np.zeros(0, np.float32),
        scales=np.array([1, 1, *factors], np.float32),
    )
    imported = import_onnx(proto)
    assert imported.model.input_shape == (None, None, None, 3)
    for size in ((1, 1), (5, 7), (32, 16)):
        x = floats(2, 3, *size, seed=3)
        (expected,) = run(proto, [x])
        got = np.asarray(imported.model(x.transpose(0, 2, 3, 1))).transpose(0, 3, 1, 2)
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
