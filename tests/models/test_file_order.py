"""Archives of Keras 2 know layers by their order: repairs that change depths must keep it."""

import json
import zipfile

import h5py
import numpy as np
import pytest

from dsconvert.models.loading import load

RNG = np.random.default_rng(0)
KERNELS = {name: RNG.normal(size=(3, 3, 3, 4)).astype("f4") for name in ("a", "b")}
WEIGHTS = {
    "2.13.1": ("_layer_checkpoint_dependencies/conv2d", "_layer_checkpoint_dependencies/conv2d_2"),
    "2.15.0": ("layers/conv2d", "layers/conv2d_1"),
}
"""Where an archive of a version has the weights of its first and second convolution."""


def layer(kind, name, before, **config):
    nodes = [[[before, 0, 0, {}]]] if kind == "Conv2D" else [[before, 0, 0, {}]]
    config = {"name": name, "trainable": True, "dtype": "float32", **config}
    return {"class_name": kind, "name": name, "config": config, "inbound_nodes": nodes}


def configuration():
    """Two branches; that of `b` is shorter in the file, and longer once erfc is spelled out."""
    conv = {"filters": 4, "kernel_size": [3, 3], "use_bias": False}
    image = {"class_name": "InputLayer", "name": "image", "inbound_nodes": [],
             "config": {"name": "image", "batch_input_shape": [None, 6, 6, 3]}}  # fmt: skip
    both = layer("TFOpLambda", "sum", "again", function="math.add")
    both["inbound_nodes"][0][3]["y"] = ["erfc", 0, 0]
    layers = [
        image, layer("Conv2D", "a", "image", **conv),
        layer("TFOpLambda", "abs", "a", function="math.abs"),
        layer("Conv2D", "b", "image", **conv),
        layer("TFOpLambda", "again", "abs", function="math.abs"),
        layer("TFOpLambda", "erfc", "b", function="math.erfc"), both,
    ]  # fmt: skip
    ends = {"input_layers": [["image", 0, 0]], "output_layers": [["sum", 0, 0]]}
    config = {"name": "net", "layers": layers, **ends}
    return {"module": "keras.src.engine.functional", "class_name": "Functional", "config": config}


@pytest.mark.parametrize("version", WEIGHTS)
def test_layers_of_one_kind_keep_their_own_weights(version, tmp_path):
    with h5py.File(tmp_path / "model.weights.h5", "w") as file:
        for place, kernel in zip(WEIGHTS[version], KERNELS.values(), strict=True):
            file[f"{place}/vars/0"] = kernel
    path = tmp_path / "net.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps(configuration()))
        archive.writestr("metadata.json", json.dumps({"keras_version": version}))
        archive.write(tmp_path / "model.weights.h5", "model.weights.h5")

    model = load(path).model

    for name, kernel in KERNELS.items():
        np.testing.assert_array_equal(model.get_layer(name).get_weights()[0], kernel)
