"""Configurations of Keras files, by hand, as old versions wrote them."""

from __future__ import annotations

import json

import h5py
import numpy as np

from dsconvert.models.loading import load

SHAPE = [None, 6, 6, 3]


def array(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def images(*shape: int, seed: int = 9) -> np.ndarray:
    return array(2, *shape, seed=seed)


def layer(class_name: str, name: str, *sources: str | list, calls: list | None = None, **config):
    """A layer as Keras 2 wrote it; ``sources`` are what its one call takes."""
    nodes = [[s if isinstance(s, list) else [s, 0, 0, {}] for s in sources]] if sources else []
    return {
        "class_name": class_name,
        "config": {"name": name, **config},
        "name": name,
        "inbound_nodes": calls if calls is not None else nodes,
    }


def image(name: str = "image", shape: list | None = None):
    return layer("InputLayer", name, batch_input_shape=shape or SHAPE, dtype="float32")


def functional(layers: list, output: list, name: str = "model", **kwargs):
    config = {"name": name, "layers": layers, "input_layers": [[layers[0]["name"], 0, 0]]}
    return {"class_name": "Model", "config": config | {"output_layers": [output]}, **kwargs}


def sequential(*layers: dict, name: str = "sequential"):
    bare = [{key: item[key] for key in ("class_name", "config")} for item in layers]
    return {"class_name": "Sequential", "config": {"name": name, "layers": bare}}


def conv(name: str, inputs: int, filters: int, window: int = 3, seed: int = 1) -> dict:
    return {
        f"{name}/kernel:0": array(window, window, inputs, filters, seed=seed),
        f"{name}/bias:0": array(filters, seed=seed + 100),
    }


def run(path, x: np.ndarray) -> np.ndarray:
    return np.asarray(load(path).model(x))


def correlate(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """A valid convolution layer, NHWC and HWIO, in the plainest way."""
    kh, kw = kernel.shape[:2]
    height, width = x.shape[1] - kh + 1, x.shape[2] - kw + 1
    return sum(
        x[:, i : i + height, j : j + width] @ kernel[i, j] for i in range(kh) for j in range(kw)
    )


def write_old_h5(
    path, config: dict, weights: dict | None = None, version="2.4.0", backend="tensorflow"
):
    """Write a legacy .h5 file; weights are {layer: {weight name: array}} in the file's order."""
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(config)
        if version:
            file.attrs["keras_version"] = version
        file.attrs["backend"] = backend
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = [name.encode() for name in weights or {}]
        for name, values in (weights or {}).items():
            inner = group.create_group(name)
            inner.attrs["weight_names"] = [key.encode() for key in values]
            for key, value in values.items():
                inner[key] = value
    return path
