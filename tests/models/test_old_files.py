"""Files of Keras 2: names, weights and layers whose rules changed until Keras 3."""

import io
import json
import zipfile

import h5py
import keras
import numpy as np
import pytest
from keras import layers
from refusals import refuses

from dsconvert.base.errors import InputError
from dsconvert.models.loading import load

IMAGES = np.random.default_rng(0).normal(size=(3, 16, 16, 3)).astype("f4")
SNAKE = {
    "Conv2D": "conv2d", "DepthwiseConv2D": "depthwise_conv2d", "Dense": "dense",
    "BatchNormalization": "batch_normalization", "Sequential": "sequential", "GRU": "gru",
    "Bidirectional": "bidirectional",
}  # fmt: skip


def randomised(model):
    """Give every weight a value of its own, so that an exchange of two shows."""
    rng = np.random.default_rng(1)
    model.set_weights([rng.uniform(0.1, 0.3, w.shape).astype("f4") for w in model.get_weights()])
    return model


def store(group, layer):
    """Write a layer's weights as Keras 2.13 did: by class, each number skipping one."""
    if hasattr(layer, "layers"):
        counts = {}
        for inner in layer.layers:
            if inner.weights:
                name = SNAKE[type(inner).__name__]
                number = counts[name] = counts.get(name, -2) + 2
                place = f"_layer_checkpoint_dependencies/{name}{f'_{number}' if number else ''}"
                store(group.create_group(place), inner)
        return
    for i, variable in enumerate(layer._trainable_variables + layer._non_trainable_variables):
        group[f"vars/{i}"] = np.asarray(variable)
    for part in ("cell", "forward_layer", "backward_layer"):
        if hasattr(layer, part):
            store(group.create_group(part), getattr(layer, part))


def archive(path, model, change=lambda file: None):
    """The model as an archive of Keras 2.13."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        store(file, model)
        change(file)
    model.save(path.with_suffix(".now.keras"))
    with zipfile.ZipFile(path.with_suffix(".now.keras")) as now, zipfile.ZipFile(path, "w") as old:
        old.writestr("config.json", now.read("config.json"))
        old.writestr("metadata.json", json.dumps({"keras_version": "2.13.1"}))
        old.writestr("model.weights.h5", buffer.getvalue())
    return path


def plain():
    x = image = keras.Input((16, 16, 3))
    for name, width in (("first", 8), ("second", 8), ("third", 8)):
        x = layers.Conv2D(width, 3, padding="same", name=name)(x)
        x = layers.BatchNormalization(name=f"{name}_norm")(x)
    x = layers.DepthwiseConv2D(3, name="dw")(x)
    return keras.Model(image, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)))


def nested():
    image = keras.Input((16, 16, 3))
    inner = [
        keras.Sequential([keras.Input((16, 16, c)), layers.Conv2D(4, 3, padding="same")])
        for c in (3, 4)
    ]
    x = layers.Conv2D(4, 3, padding="same")(inner[1](inner[0](image)))
    return keras.Model(image, layers.GlobalAveragePooling2D()(x))


def recurrent():
    image = keras.Input((16, 16, 3))
    x = layers.Reshape((16, 48))(image)
    x = layers.Bidirectional(layers.GRU(5, return_sequences=True))(x)
    return keras.Model(image, layers.GRU(4)(x))


@pytest.mark.parametrize("build", [plain, nested, recurrent])
def test_an_archive_whose_weights_are_named_by_class(build, tmp_path):
    model = randomised(build())
    loaded = load(archive(tmp_path / "old.keras", model)).model

    for found, expected in zip(loaded.get_weights(), model.get_weights(), strict=True):
        assert np.array_equal(found, expected)
    assert np.allclose(loaded.predict(IMAGES, verbose=0), model.predict(IMAGES, verbose=0))


def test_an_archive_that_lacks_a_layer_is_refused(tmp_path):
    def without_second(file):
        del file["_layer_checkpoint_dependencies/conv2d_2"]

    with pytest.raises(InputError, match="conv2d"):
        load(archive(tmp_path / "old.keras", plain(), without_second))


def test_an_archive_of_another_shape_is_refused(tmp_path):
    def other_shape(file):
        del file["_layer_checkpoint_dependencies/conv2d_2/vars/0"]
        file["_layer_checkpoint_dependencies/conv2d_2/vars/0"] = np.zeros((1, 1, 8, 8), "f4")

    with refuses("not-rebuilt"):
        load(archive(tmp_path / "old.keras", plain(), other_shape))


def layer(kind, name, inbound, **config):
    return {
        "class_name": kind,
        "config": {"name": name, "trainable": True, "dtype": "float32", **config},
        "name": name,
        "inbound_nodes": [[[inbound, 0, 0, {}]]] if inbound else [],
    }


def legacy(path, items, weights, end):
    """An .h5 file of Keras 2.13 from its layers and kernels."""
    image = layer("InputLayer", "image", None, batch_input_shape=[None, 16, 16, 3])
    config = {
        "class_name": "Functional",
        "config": {
            "name": "net", "layers": [image, *items], "input_layers": [["image", 0, 0]],
            "output_layers": [[end, 0, 0]],
        },
    }  # fmt: skip
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"], file.attrs["backend"] = "2.13.1", "tensorflow"
        file.attrs["model_config"] = json.dumps(config)
        group = file.create_group("model_weights")
        names = [item["name"] for item in (image, *items)]
        group.attrs["layer_names"] = [name.encode() for name in names]
        for name in names:
            stored = group.require_group(name)
            stored.attrs["weight_names"] = [f"{name}/kernel:0".encode()] if name in weights else []
            if name in weights:
                stored[f"{name}/kernel:0"] = weights[name]
    return path


CONV = {"kernel_size": [3, 3], "padding": "same", "activation": "linear", "use_bias": False}


def test_slashes_in_names_become_underscores_everywhere(tmp_path):
    rng = np.random.default_rng(0)
    kernels = {
        "a/b": rng.normal(size=(3, 3, 3, 8)).astype("f4"),
        "a_b": rng.normal(size=(3, 3, 8, 8)).astype("f4"),
        "c/d": rng.normal(size=(3, 3, 8, 8)).astype("f4"),
    }
    items = [
        layer("Conv2D", "a/b", "image", filters=8, **CONV),
        layer("Conv2D", "a_b", "a/b", filters=8, **CONV),
        layer("Conv2D", "c/d", "a_b", filters=8, **CONV),
    ]
    loaded = load(legacy(tmp_path / "slash.h5", items, kernels, "c/d"))

    found = {x.name: x.get_weights()[0] for x in loaded.model.layers if x.weights}
    assert found.keys() == {"a_b_2", "a_b", "c_d"}  # a_b was taken
    for name, old in (("a_b_2", "a/b"), ("a_b", "a_b"), ("c_d", "c/d")):
        assert np.array_equal(found[name], kernels[old])
    assert any("a/b to a_b_2" in repair for repair in loaded.repairs)


def test_slashes_in_layers_inside_others(tmp_path):
    """A wrapper holds a layer of its own, to which nothing refers."""
    kernels = {"t/d": np.random.default_rng(0).normal(size=(3, 8)).astype("f4")}
    inner = {"class_name": "Dense", "config": {"name": "d/e", "units": 8, "use_bias": False}}
    items = [layer("TimeDistributed", "t/d", "image", layer=inner)]
    loaded = load(legacy(tmp_path / "slash.h5", items, kernels, "t/d"))

    assert np.array_equal(loaded.model.get_layer("t_d").get_weights()[0], kernels["t/d"])
    assert any("d/e to d_e" in repair for repair in loaded.repairs)


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("RandomCrop", {"height": 8, "width": 8}),
        ("Resizing", {"height": 8, "width": 8, "interpolation": "gaussian"}),
        ("Resizing", {"height": 8, "width": 8, "interpolation": "mitchellcubic"}),
        ("TimeDistributed", {"layer": layer("Activation", "a", "b", activation="hard_sigmoid")}),
    ],
)
def test_layers_that_compute_something_else_today_are_refused_by_name(kind, config, tmp_path):
    items = [
        layer(kind, "changed", "image", **config),
        layer("Conv2D", "conv", "changed", filters=8, **CONV),
    ]
    weights = {"conv": np.zeros((3, 3, 3, 8), "f4")}
    with refuses("meaning-changed"):
        load(legacy(tmp_path / "old.h5", items, weights, "conv"))


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_lambda_in_a_functional_model_of_keras_3(suffix, tmp_path):
    image = keras.Input((16, 16, 3))
    x = layers.Lambda(lambda x: x / 127.5 - 1.0, name="scaled")(image)
    model = keras.Model(image, layers.Conv2D(4, 3)(x))
    model.save(tmp_path / f"lambda{suffix}")

    loaded = load(tmp_path / f"lambda{suffix}").model

    scaled = loaded.get_layer("scaled")
    assert type(scaled).__name__ == "Rescaling"
    assert (scaled.scale, scaled.offset) == (pytest.approx(1 / 127.5), pytest.approx(-1.0))
    expected = model.predict(255 * IMAGES, verbose=0)
    assert np.allclose(loaded.predict(255 * IMAGES, verbose=0), expected, atol=1e-5)


def tuples(value):
    """JSON with lists of numbers as tf.keras wrote tuples."""
    if isinstance(value, dict):
        return {key: tuples(child) for key, child in value.items()}
    if isinstance(value, list) and value and all(isinstance(x, int | None) for x in value):
        return {"class_name": "__tuple__", "items": value}
    return [tuples(child) for child in value] if isinstance(value, list) else value


def checkpoint_paths(layer):
    """Every variable of a layer or model by the attributes that lead to it."""
    parts = {name: getattr(layer, name, None) for name in ("cell", "layer")}
    found = {}
    if hasattr(layer, "layers"):
        inside = [inner for inner in layer.layers if inner.weights]
        parts = {f"layer_with_weights-{number}": inner for number, inner in enumerate(inside)}
    else:
        for variable in layer._trainable_variables + layer._non_trainable_variables:
            depthwise = type(layer).__name__ == "DepthwiseConv2D" and variable.name == "kernel"
            found["depthwise_kernel" if depthwise else variable.name] = np.asarray(variable)
    for name, part in parts.items():
        if part is not None:
            found |= {f"{name}/{path}": value for path, value in checkpoint_paths(part).items()}
    return found


def checkpoint(paths):
    """The graph of objects that these paths are, and the values under the names they have there.

    As tf.keras does, a value inside a nested layer is named by its number among all variables.
    """
    from tensorflow.core.protobuf import trackable_object_graph_pb2 as messages

    graph = messages.TrackableObjectGraph()
    graph.nodes.add()
    graph.nodes.add()
    graph.nodes[0].children.add(node_id=1, local_name="variables")
    values = {}
    for number, (path, value) in enumerate(paths.items()):
        at = 0
        for name in path.split("/"):
            inside = {child.local_name: child.node_id for child in graph.nodes[at].children}
            if name not in inside:
                inside[name] = len(graph.nodes)
                graph.nodes.add()
                graph.nodes[at].children.add(node_id=inside[name], local_name=name)
            at = inside[name]
        graph.nodes[1].children.add(node_id=at, local_name=str(number))
        key = f"{path if path.count('/') < 2 else f'variables/{number}'}/.ATTRIBUTES/VARIABLE_VALUE"
        graph.nodes[at].attributes.add(name="VARIABLE_VALUE", checkpoint_key=key)
        values[key] = value
    return values | {"_CHECKPOINTABLE_OBJECT_GRAPH": graph.SerializeToString()}


def saved_model(folder, model, *, identifier="_tf_keras_network", drop=None):
    """The model as tf.keras 2.13 saved it: without its graph, which is not read."""
    import tensorflow as tf

    from dsconvert.models.loading.saved_model import _saved_metadata

    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"a graph")
    config = json.loads(model.to_json())
    said = {"class_name": config["class_name"], "config": tuples(config["config"])}
    said["keras_version"] = "2.13.1"
    metadata = _saved_metadata()()
    metadata.nodes.add(node_path="root", identifier=identifier, metadata=json.dumps(said))
    (folder / "keras_metadata.pb").write_bytes(metadata.SerializeToString())
    paths = checkpoint_paths(model)
    if drop:
        del paths[next(path for path in paths if drop in path)]
    values = checkpoint(paths)
    tf.raw_ops.SaveV2(
        prefix=str(folder / "variables" / "variables"),
        tensor_names=list(values),
        shape_and_slices=[""] * len(values),
        tensors=list(values.values()),
    )
    return folder


def with_gru():
    image = keras.Input((16, 16, 3))
    return keras.Model(image, layers.GRU(4)(layers.Reshape((16, 48))(image)))


def around_a_model():
    image = keras.Input((16, 16, 3))
    rows = keras.Sequential([keras.Input((16, 3)), layers.Conv1D(2, 3), layers.Flatten()])
    inner = keras.Sequential([keras.Input((16, 28)), layers.GRU(3)], name="inner")
    return keras.Model(image, inner(layers.TimeDistributed(rows)(image)))


@pytest.mark.parametrize("build", [plain, nested, with_gru, around_a_model])
def test_a_saved_model_that_keras_wrote(build, tmp_path):
    model = randomised(build())

    loaded = load(saved_model(tmp_path / "saved", model))

    assert loaded.format == "savedmodel"
    assert [x.name for x in loaded.model.layers] == [x.name for x in model.layers]
    expected = model.predict(IMAGES, verbose=0)
    assert np.allclose(loaded.model.predict(IMAGES, verbose=0), expected, atol=1e-6)


@pytest.mark.parametrize("drop", ["layer_with_weights-0/kernel", "layer_with_weights-1/gamma"])
def test_a_saved_model_that_lacks_a_weight_is_refused(drop, tmp_path):
    with pytest.raises(InputError, match=drop.split("/")[1]):
        load(saved_model(tmp_path / "saved", plain(), drop=drop))


def test_a_saved_model_without_layers_says_what_else_to_do(tmp_path):
    folder = saved_model(tmp_path / "saved", plain(), identifier="_tf_keras_custom")
    with refuses("saved-model-without-layers") as refused:
        load(folder)
    assert "tf2onnx" in refused.value.hint


def test_a_saved_model_of_a_class_of_the_users_own_is_read_as_onnx(tmp_path):
    from dsconvert.workflows.model_files import kind_of

    assert kind_of(saved_model(tmp_path / "layers", plain())) == "keras"
    own = saved_model(tmp_path / "own", plain(), identifier="_tf_keras_custom")
    assert kind_of(own) == "onnx"


def test_a_saved_model_with_a_damaged_checkpoint(tmp_path):
    folder = saved_model(tmp_path / "saved", plain())
    (folder / "variables" / "variables.index").write_bytes(b"not a checkpoint")
    with refuses("weights-do-not-fit"):
        load(folder)


@pytest.fixture(scope="module")
def graph_only(tmp_path_factory):
    """A SavedModel without Keras' description, and the model that it was exported from."""
    folder = tmp_path_factory.mktemp("graph") / "saved"
    model = randomised(plain())
    model.export(folder, verbose=False)
    return folder, model


@pytest.mark.slow
def test_a_saved_model_without_layers_is_read_as_onnx(graph_only, tmp_path, monkeypatch):
    import dsconvert as ds

    folder, model = graph_only
    rewritten = ds.rewrite(
        folder, options=ds.RewriteOptions(pairs=100), output=tmp_path / "small.onnx"
    )
    assert len(rewritten.report.rewritten) > 0
    imported = ds.import_onnx(folder).model
    assert ds.export(folder, tmp_path / "whole.onnx").fidelity[0].relative_error < 1e-6
    expected = model.predict(IMAGES, verbose=0)
    assert np.allclose(imported.predict(IMAGES, verbose=0), expected, atol=1e-4)


def test_a_saved_model_that_cannot_be_converted(tmp_path):
    import dsconvert as ds

    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").write_bytes(b"no graph")
    with pytest.raises(InputError) as refused:
        ds.inspect(tmp_path / "saved")
    assert refused.value.code == "saved-model"
