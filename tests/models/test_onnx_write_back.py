"""The weights of an imported model back in its own ONNX graph, whatever they were stored in."""

from __future__ import annotations

import keras
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_graphs import assert_same, run
from onnx_nets import check_write_back, every_kind, floats, graph, node, small_cnn
from refusals import refuses

from dsconvert.base.errors import InputError
from dsconvert.deploy.exporting.export import export
from dsconvert.models.onnx_import import import_onnx


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


def test_a_bias_behind_a_cast_is_a_bias():
    """As in files whose exporter stores float16 and computes in float32."""
    stored = floats(3).astype(np.float16)
    nodes = [node("MatMul", "x v", "m"), node("Cast", "half", "b", to=1), node("Add", "m b", "y")]
    model = graph(nodes, ["n", 4], "y", v=floats(4, 3), half=stored)
    imported = import_onnx(model)
    (layer,) = [layer for layer in imported.model.layers if layer.weights]
    assert [weight.shape for weight in layer.weights] == [(4, 3), (3,)]
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
    with refuses("external-data-missing"):
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


def test_weights_of_another_size_are_refused():
    imported = import_onnx(small_cnn())
    x = keras.Input((8, 8, 3))
    wider = keras.Model(x, keras.layers.Conv2D(6, 3, name="Conv_c")(x))
    with pytest.raises(InputError, match=r"kernel of layer 'Conv_c' has shape \(3, 3, 3, 6\)"):
        imported.write_back(wider)


def test_it_is_a_plain_keras_model_that_tflite_runs(tmp_path):
    imported = import_onnx(every_kind())
    imported.model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    x = floats(3, 4, 4, 3)
    np.testing.assert_array_equal(loaded(x), imported.model(x))
    assert export(loaded, tmp_path / "model.tflite").fidelity[0].relative_error < 1e-4
