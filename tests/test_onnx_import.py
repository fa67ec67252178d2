"""ONNX graphs in Keras and back: layout, batches, weights, errors.

`import_onnx` compares every model with ONNX Runtime before it returns it, so a test that imports
has compared; `assert_same` does it once more from outside. Operators one by one are in
test_onnx_import_layers.py.
"""

from __future__ import annotations

from collections import Counter

import keras
import numpy as np
import onnx
import pytest
from dsconvert.converter.core.errors import GateFailed, InputError
from dsconvert.deploy import export
from dsconvert.models import import_onnx
from onnx import TensorProto, helper, numpy_helper
from onnx_graphs import assert_same, run


def floats(*shape: int, seed: int = 0, scale: float = 0.5) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def node(kind: str, inputs: str, output: str, **attributes) -> onnx.NodeProto:
    return helper.make_node(
        kind, inputs.split(), output.split(), name=f"{kind}/{output}", **attributes
    )


def graph(
    nodes,
    shape,
    outputs: str,
    opset: int = 17,
    ir: int = 8,
    inputs: str = "x",
    dtype=TensorProto.FLOAT,
    **weights: np.ndarray,
) -> onnx.ModelProto:
    stored = [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()]
    values = [helper.make_tensor_value_info(name, dtype, shape) for name in inputs.split()]
    if ir < 4:
        values += [helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)) for t in stored]
    made = helper.make_graph(
        nodes,
        "net",
        values,
        [onnx.ValueInfoProto(name=name) for name in outputs.split()],
        stored,
    )
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model(made, opset_imports=opsets, ir_version=ir, producer_name="test")
    inferred = onnx.shape_inference.infer_shapes(model).graph.output
    for value, known in zip(model.graph.output, inferred, strict=True):
        value.CopyFrom(known)
        if not known.HasField("type"):
            value.type.tensor_type.elem_type = dtype
    return model


def kinds(model: keras.Model) -> Counter:
    """How often each kind of layer or operation stands in a model, inputs left out."""
    names = (type(operation).__name__ for operation in model.operations)
    return Counter(name for name in names if name != "InputLayer")


def small_cnn(**options) -> onnx.ModelProto:
    """Conv, ReLU, pool, Flatten, Gemm on (1, 3, 8, 8)."""
    nodes = [
        node("Conv", "x w b", "c", pads=[1, 1, 1, 1]),
        node("Relu", "c", "r"),
        node("MaxPool", "r", "p", kernel_shape=[2, 2], strides=[2, 2]),
        node("Flatten", "p", "f"),
        node("Gemm", "f v d", "y", transB=1),
    ]
    weights = {
        "w": floats(4, 3, 3, 3),
        "b": floats(4, seed=1),
        "v": floats(5, 64, seed=2),
        "d": floats(5, seed=3),
    }
    return graph(nodes, [1, 3, 8, 8], "y", **weights, **options)


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
    assert kinds(imported.model)["Permute"] == 1


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
    with pytest.raises(InputError, match="does not run"):
        import_onnx(model, inputs=[floats(2, 3, 4, 6)])
    with pytest.raises(InputError, match="one array per input"):
        import_onnx(model, inputs=[floats(2, 3, 4)])


# --- the way back -------------------------------------------------------------------------------


def check_write_back(imported, inputs, model=None) -> onnx.ModelProto:
    """Change every weight, write back, and hold ONNX Runtime against Keras."""
    model = imported.model if model is None else model
    for number, weight in enumerate(model.trainable_weights):
        weight.assign(weight * 1.1 + 0.01 * (number + 1))
    written = imported.write_back(model)
    onnx.checker.check_model(written, full_check=True)
    stored = [np.transpose(x, axes) for x, axes in zip(inputs, imported.input_axes, strict=True)]
    packed = keras.tree.pack_sequence_as(model.input, stored)
    ours = keras.tree.flatten(model(packed, training=False))
    for mine, theirs, axes in zip(ours, run(written, inputs), imported.output_axes, strict=True):
        np.testing.assert_allclose(
            mine, np.transpose(theirs, axes), rtol=1e-4, atol=1e-5 * np.abs(theirs).max()
        )
    return written


def nodes_of(model: onnx.ModelProto) -> list[tuple]:
    return [(n.op_type, n.name, tuple(n.input), tuple(n.output)) for n in model.graph.node]


def test_nothing_changed_is_the_same_file():
    model = small_cnn()
    imported = import_onnx(model)
    assert imported.write_back().SerializeToString() == model.SerializeToString()


def test_weights_that_were_not_changed_are_stored_as_they_were():
    """In whichever field of the protobuf that is."""
    model = small_cnn()
    (bias,) = (t for t in model.graph.initializer if t.name == "b")
    values = numpy_helper.to_array(bias).tolist()
    bias.CopyFrom(helper.make_tensor("b", TensorProto.FLOAT, [4], values))
    assert bias.float_data
    imported = import_onnx(model)
    kernel = imported.model.get_layer("Conv_c").kernel
    kernel.assign(kernel * 2)
    (written,) = (t for t in imported.write_back().graph.initializer if t.name == "b")
    assert written.SerializeToString() == bias.SerializeToString()


def test_changed_weights_stand_where_the_old_ones_stood(tmp_path):
    model = small_cnn()
    model.metadata_props.add(key="author", value="somebody")
    imported = import_onnx(model)
    imported.model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    written = check_write_back(imported, [floats(1, 3, 8, 8)], loaded)
    assert nodes_of(written) == nodes_of(model)
    assert [t.name for t in written.graph.initializer] == ["w", "b", "v", "d"]
    assert written.metadata_props == model.metadata_props
    assert written.opset_import == model.opset_import
    # The imported model itself was not touched.
    assert imported.write_back().SerializeToString() == model.SerializeToString()


def every_kind(**options) -> onnx.ModelProto:
    """One of each kind of layer with weights."""
    nodes = [
        node("Conv", "x w0 b0", "a", pads=[1, 1, 1, 1]),
        node("BatchNormalization", "a g1 b1 m1 v1", "b"),
        node("PRelu", "b p2", "c"),
        node("Conv", "c w3", "d", group=4, pads=[1, 1, 1, 1]),
        node("Conv", "d w4", "e", group=2),
        node("ConvTranspose", "e w5 b5", "f", strides=[2, 2]),
        node("ConvTranspose", "f w6", "g", group=2, pads=[1, 1, 1, 1]),
        node("InstanceNormalization", "g g7 b7", "h"),
        node("LayerNormalization", "h g8 b8", "i"),
        node("MatMul", "w9 i", "j"),
        node("Gemm", "k w11 c11", "y", alpha=0.5, beta=2.0, transB=1),
    ]
    nodes.insert(10, node("Flatten", "j", "k"))
    weights = {
        "w0": floats(4, 3, 3, 3),
        "b0": floats(4),
        "g1": 1 + floats(4, scale=0.1),
        "b1": floats(4, seed=1),
        "m1": floats(4, seed=2),
        "v1": 1 + np.abs(floats(4)),
        "p2": np.abs(floats(4, 1, 1)),
        "w3": floats(8, 1, 3, 3),
        "w4": floats(6, 4, 1, 1),
        "w5": floats(6, 4, 2, 2),
        "b5": floats(4),
        "w6": floats(4, 3, 3, 3),
        "g7": 1 + floats(6, scale=0.1),
        "b7": floats(6),
        "g8": 1 + floats(8, scale=0.1),
        "b8": floats(8),
        "w9": floats(3, 8),
        "w11": floats(5, 144, scale=0.1),
        "c11": floats(5),
    }
    return graph(nodes, [1, 3, 4, 4], "y", **weights, **options)


def test_every_kind_of_weight_goes_back():
    model = every_kind()
    imported = assert_same(model, [floats(1, 3, 4, 4)])
    written = check_write_back(imported, [floats(1, 3, 4, 4)])
    assert nodes_of(written) == nodes_of(model)
    statistics = {"m1", "v1"}
    old = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    for tensor in written.graph.initializer:
        same = np.array_equal(numpy_helper.to_array(tensor), old[tensor.name])
        assert same == (tensor.name in statistics), tensor.name


def test_what_training_changes_goes_back(tmp_path):
    """One step on random labels, grouped and transposed convolutions among the layers."""
    imported = import_onnx(every_kind())
    model = imported.model
    model.compile(keras.optimizers.SGD(0.01), "mse")
    model.fit(floats(8, 4, 4, 3), floats(8, 5), batch_size=8, verbose=0)
    assert all(np.isfinite(w.numpy()).all() for w in model.weights)
    old = {t.name: numpy_helper.to_array(t) for t in imported.source.graph.initializer}
    written = imported.write_back()
    changed = {
        t.name
        for t in written.graph.initializer
        if not np.array_equal(numpy_helper.to_array(t), old[t.name])
    }
    # The biases in front of a normalisation have no gradient but rounding.
    assert changed >= {
        "w0",
        "g1",
        "m1",
        "v1",
        "p2",
        "w3",
        "w4",
        "w5",
        "w6",
        "g7",
        "g8",
        "w9",
        "w11",
    }
    x = floats(1, 3, 4, 4)
    ours = model(np.transpose(x, (0, 2, 3, 1)), training=False)
    np.testing.assert_allclose(ours, run(written, [x])[0], rtol=1e-3, atol=1e-4)


def test_float16_goes_back_as_float16():
    nodes = [node("Conv", "x w b", "c"), node("Relu", "c", "y")]
    weights = {"w": floats(4, 3, 3, 3).astype(np.float16), "b": floats(4).astype(np.float16)}
    model = graph(nodes, [1, 3, 6, 6], "y", dtype=TensorProto.FLOAT16, **weights)
    imported = import_onnx(model)
    assert imported.model.dtype == "float32"
    assert imported.write_back().SerializeToString() == model.SerializeToString()
    kernel = imported.model.get_layer("Conv_c").kernel
    kernel.assign(kernel + 1)
    (w, b) = imported.write_back().graph.initializer
    assert w.data_type == b.data_type == TensorProto.FLOAT16
    np.testing.assert_array_equal(
        numpy_helper.to_array(w), (weights["w"].astype(np.float32) + 1).astype(np.float16)
    )
    np.testing.assert_array_equal(numpy_helper.to_array(b), weights["b"])


def test_a_shared_initializer_is_split_where_its_layers_differ():
    nodes = [node("Conv", "x w", "a"), node("Conv", "a w", "b"), node("Conv", "b w", "y")]
    model = graph(nodes, [1, 3, 6, 6], "y", w=floats(3, 3, 1, 1))
    imported = import_onnx(model)
    layers = [imported.model.get_layer(f"Conv_{name}") for name in "aby"]
    for layer in layers:
        layer.kernel.assign(layer.kernel + 1)
    together = imported.write_back()
    assert nodes_of(together) == nodes_of(model)
    assert len(together.graph.initializer) == 1
    layers[1].kernel.assign(layers[1].kernel * 2)
    split = check_write_back(imported, [floats(1, 3, 6, 6)])
    assert [n.output[0] for n in split.graph.node] == ["a", "b", "y"]
    assert len({n.input[1] for n in split.graph.node}) == 3


@pytest.mark.parametrize("ir", [3, 8])
def test_a_split_initializer_is_an_input_only_in_old_files(ir):
    nodes = [node("Conv", "x w", "a"), node("Conv", "a w", "y")]
    model = graph(nodes, [1, 3, 6, 6], "y", opset=8, ir=ir, w=floats(3, 3, 1, 1))
    imported = import_onnx(model)
    assert imported.input_names == ("x",)
    written = check_write_back(imported, [floats(1, 3, 6, 6)])
    listed = {value.name for value in written.graph.input}
    assert listed == ({"x", *(t.name for t in written.graph.initializer)} if ir < 4 else {"x"})


def test_weights_in_constant_nodes_go_back_into_them():
    model = small_cnn()
    for tensor in model.graph.initializer:
        made = helper.make_node("Constant", [], [tensor.name], value=tensor)
        model.graph.node.insert(0, made)
    del model.graph.initializer[:]
    imported = assert_same(model, [floats(1, 3, 8, 8)])
    assert len(imported.model.weights) == 4
    written = check_write_back(imported, [floats(1, 3, 8, 8)])
    assert nodes_of(written) == nodes_of(model)
    assert len(written.graph.initializer) == 0


def test_constants_in_every_form_are_read():
    nodes = [
        helper.make_node("Constant", [], ["s"], value_float=2.0),
        helper.make_node("Constant", [], ["v"], value_floats=[1.0, 2.0, 3.0]),
        helper.make_node("Constant", [], ["i"], value_int=3),
        helper.make_node("Constant", [], ["t"], value_ints=[2, 2]),
        node("Mul", "x s", "a"),
        node("Add", "a v", "b"),
        node("ConstantOfShape", "t", "z"),
        node("ReduceSum", "z", "n", keepdims=0),
        node("Add", "b n", "y"),
    ]
    assert_same(graph(nodes, ["n", 3], "y"), [floats(2, 3)])


@pytest.mark.parametrize("kind", ["Transpose", "Reshape", "Unsqueeze"])
def test_weights_that_are_moved_on_their_way_go_back_to_where_they_are_stored(kind):
    moves = {
        "Transpose": (floats(5, 12), [node("Transpose", "v", "m")], {}),
        "Reshape": (floats(3, 4, 5), [node("Reshape", "v s", "m")], {"s": np.array([12, 5])}),
        "Unsqueeze": (
            floats(12 * 5),
            [node("Unsqueeze", "v i", "k"), node("Reshape", "k s", "m")],
            {"i": np.array([0]), "s": np.array([12, -1])},
        ),
    }
    stored, moved, more = moves[kind]
    model = graph([*moved, node("MatMul", "x m", "y")], ["n", 12], "y", v=stored, **more)
    imported = assert_same(model, [floats(2, 12)])
    written = check_write_back(imported, [floats(2, 12)])
    assert nodes_of(written) == nodes_of(model)
    assert [t.name for t in written.graph.initializer] == [t.name for t in model.graph.initializer]


def test_weights_that_are_computed_become_stored_ones():
    nodes = [node("Mul", "v s", "m"), node("MatMul", "x m", "y"), node("MatMul", "x v", "z")]
    model = graph(nodes, ["n", 4], "y z", v=floats(4, 3), s=floats(3, seed=1))
    imported = assert_same(model, [floats(2, 4)])
    assert imported.write_back().SerializeToString() == model.SerializeToString()
    check_write_back(imported, [floats(2, 4)])


def test_weights_in_files_beside_the_model(tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(
        small_cnn(), path, save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    imported = import_onnx(path)
    assert imported.path == path
    assert len(imported.sha256) == 64
    written = check_write_back(imported, [floats(1, 3, 8, 8)])
    assert all(not t.external_data for t in written.graph.initializer)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(InputError, match="weights"):
        import_onnx(path)


def test_another_model_is_not_written_back():
    imported = import_onnx(small_cnn())
    x = keras.Input((4,))
    with pytest.raises(InputError, match="no kernel in a layer 'Conv_c'"):
        imported.write_back(keras.Model(x, keras.layers.Dense(2)(x)))
    wider = keras.models.clone_model(
        imported.model,
        clone_function=lambda layer: (
            keras.layers.Conv2D(4, 3, padding="same", name="Conv_c", use_bias=False)
            if layer.name == "Conv_c"
            else layer.__class__.from_config(layer.get_config())
        ),
    )
    with pytest.raises(InputError, match="no bias in a layer 'Conv_c'"):
        imported.write_back(wider)


# --- saved, and on TFLite -----------------------------------------------------------------------


def test_it_is_a_plain_keras_model_that_tflite_runs(tmp_path):
    imported = import_onnx(every_kind())
    imported.model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    x = floats(3, 4, 4, 3)
    np.testing.assert_array_equal(loaded(x), imported.model(x))
    assert export(loaded, tmp_path / "model.tflite").fidelity[0].relative_error < 1e-4


# --- errors -------------------------------------------------------------------------------------


def test_all_unknown_operators_are_named_at_once():
    nodes = [node("Det", "x", "a"), node("Relu", "a", "r"), node("Det", "x", "b")]
    nodes += [node("NonZero", "r", "y")]
    with pytest.raises(InputError) as caught:
        import_onnx(graph(nodes, ["n", 3, 3], "b y"))
    assert "Det (Det/a, Det/b); NonZero (NonZero/y)" in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    ("kind", "advice"), [("QuantizeLinear", "float model"), ("LSTM", "recurrent")]
)
def test_what_to_do_instead(kind, advice):
    made = {
        "QuantizeLinear": [
            node("QuantizeLinear", "x s", "q"),
            node("DequantizeLinear", "q s", "y"),
        ],
        "LSTM": [node("LSTM", "x w r", "y", hidden_size=2)],
    }[kind]
    weights = (
        {"s": np.float32(0.1)} if kind != "LSTM" else {"w": floats(1, 8, 3), "r": floats(1, 8, 2)}
    )
    with pytest.raises(InputError, match=kind) as caught:
        import_onnx(graph(made, [2, 2, 3], "y", **weights))
    assert advice in caught.value.hint


def test_control_flow_is_refused():
    branch = helper.make_graph(
        [node("Relu", "x", "t")], "b", [], [helper.make_tensor_value_info("t", 1, None)]
    )
    nodes = [
        node("ReduceSum", "x", "s", keepdims=0),
        node("Greater", "s z", "c"),
        node("If", "c", "y", then_branch=branch, else_branch=branch),
    ]
    with pytest.raises(InputError, match="If ") as caught:
        import_onnx(graph(nodes, ["n", 3], "y", z=np.float32(0)))
    assert "control flow" in caught.value.hint


def test_other_domains_are_refused():
    made = node("Relu", "x", "a")
    other = node("FusedConv", "a w", "y")
    other.domain = "com.microsoft"
    model = graph([made], [1, 3, 4, 4], "a", w=floats(4, 3, 1, 1))
    model.graph.node.append(other)
    model.graph.output[0].name = "y"
    model.opset_import.add(domain="com.microsoft", version=1)
    with pytest.raises(InputError, match=r"com\.microsoft\.FusedConv \(FusedConv/y\)"):
        import_onnx(model)


def test_what_onnx_runtime_refuses_is_refused():
    model = small_cnn()
    model.graph.node[0].attribute.append(helper.make_attribute("strides", [0, 0, 0]))
    with pytest.raises(InputError, match="ONNX Runtime"):
        import_onnx(model)


def test_weights_that_are_computed_from_the_data_are_refused():
    nodes = [node("GlobalAveragePool", "x", "g"), node("Conv", "x g", "y")]
    with pytest.raises(InputError, match=r"Conv 'Conv/y'.*computed from the model's inputs"):
        import_onnx(graph(nodes, [1, 3, 4, 4], "y"))


def test_an_output_that_depends_on_nothing_is_refused():
    nodes = [node("Relu", "x", "y"), node("Add", "a a", "z")]
    with pytest.raises(InputError, match="'z' does not depend"):
        import_onnx(graph(nodes, [1, 3], "y z", a=floats(3)))


def test_training_mode_is_refused():
    nodes = [node("BatchNormalization", "x g g g g", "y m v", training_mode=1)]
    with pytest.raises(InputError, match="training mode") as caught:
        import_onnx(graph(nodes, [2, 3, 4, 4], "y", g=np.ones(3, np.float32)))
    assert "eval" in caught.value.hint


def test_what_is_no_model_is_refused(tmp_path):
    with pytest.raises(InputError, match="list"):
        import_onnx([1])
    with pytest.raises(InputError, match="no such file"):
        import_onnx(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(InputError, match="not an ONNX model"):
        import_onnx(str(tmp_path / "text.onnx"))


def test_a_wrong_import_is_not_given_out(monkeypatch):
    from dsconvert.models.onnx_import import registry

    import_onnx(small_cnn())  # registers the handlers
    monkeypatch.setitem(registry.HANDLERS, "Relu", registry.HANDLERS["Identity"])
    with pytest.raises(GateFailed, match=r"output 'y' differs.*relative error"):
        import_onnx(small_cnn())
