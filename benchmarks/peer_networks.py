"""Keras networks from what other tools make of their kernels."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from peer_tools import program

Array = np.ndarray[Any, Any]


class Convolution(NamedTuple):
    """A layer to decompose.

    Attributes:
        name: Of the layer.
        kernel: (kh, kw, C, N).
        ranks: One for spatial SVD and CP, two for Tucker-2.
    """

    name: str
    kernel: Array
    ranks: Array


def convolutions(model: Any, limit: float, method: str) -> list[Convolution]:
    """Find the layers, and the largest ranks with which all keep the same share of their MACs.

    Args:
        model: A keras.Model.
        limit: MACs of the whole network at most.
        method: One of "spatial", "tucker" and "cp".

    Raises:
        ValueError: If no rank is small enough.
    """
    import keras

    from dsconvert.converter.inspect import inspect

    layers = [
        layer
        for layer in model.layers
        if isinstance(layer, keras.layers.Conv2D)
        and not isinstance(layer, keras.layers.DepthwiseConv2D)
        and max(layer.kernel_size) > 1
        and layer.input.shape[-1] > 4
    ]
    total = float(sum(map(_macs, layers)))
    share = (limit - (inspect(model).macs or 0) + total) / total
    found = []
    for layer in layers:
        options = _options(layer, method)
        fitting = [ranks for ranks, macs in options if macs <= share * _macs(layer)]
        if not fitting:
            raise ValueError(f"no rank of {layer.name} is small enough")
        found.append(Convolution(layer.name, np.asarray(layer.kernel), np.asarray(fitting[-1])))
    return found


def _macs(layer: Any) -> float:
    kh, kw, C, N = layer.kernel.shape
    _, H, W, _ = layer.output.shape
    return float(H * W * kh * kw * C * N)


def _options(layer: Any, method: str) -> list[tuple[list[int], float]]:
    """List ranks, small ones first, and what they cost."""
    kh, kw, C, N = layer.kernel.shape
    (_, H, W, _), (_, h, w, _) = layer.input.shape, layer.output.shape
    if method == "spatial":
        return [([R], R * (h * W * kh * C + h * w * kw * N)) for R in range(1, kh * C + 1)]
    if method == "cp":
        return [([R], R * (H * W * C + h * w * (kh * kw + N))) for R in range(1, kh * kw * C + 1)]
    found = []
    for step in range(1, C + 1):
        r, s = step, max(1, round(step * N / C))
        found.append(([r, s], H * W * C * r + h * w * (kh * kw * r * s + s * N)))
    return found


def spatial_svd(kernel: Array, rank: int) -> list[Array]:
    """Split a kernel into a vertical and a horizontal one (Jaderberg et al. 2014)."""
    kh, kw, C, N = kernel.shape
    left, size, right = np.linalg.svd(kernel.transpose(0, 2, 1, 3).reshape(kh * C, kw * N))
    root = np.sqrt(size[:rank])
    first = (left[:, :rank] * root).reshape(kh, 1, C, rank)
    second = (right[:rank].T * root).reshape(kw, N, rank).transpose(0, 2, 1)[None]
    return [first, second]


def composed(model: Any, parts: Mapping[str, Sequence[Array]], method: str) -> Any:
    """Return the network with layers replaced by several that have these kernels."""

    def replaced(layer: Any) -> Any:
        config = layer.get_config()
        if layer.name in parts:
            return _several(layer, parts[layer.name], method)
        return type(layer).from_config(config)

    def weights(layer: Any) -> list[Array]:
        if layer.name in parts:
            kernels = [np.asarray(kernel, np.float32) for kernel in parts[layer.name]]
            bias = [np.asarray(layer.bias)] if layer.use_bias else []
            return [*kernels, *bias]
        return list(layer.get_weights())

    return _cloned(model, replaced, weights)


def _several(layer: Any, kernels: Sequence[Array], method: str) -> Any:
    import keras

    (sh, sw), padding = layer.strides, layer.padding
    last = {"use_bias": layer.use_bias, "activation": layer.activation}
    conv, depthwise = keras.layers.Conv2D, keras.layers.DepthwiseConv2D
    N = layer.filters
    if method == "spatial":
        R = kernels[0].shape[-1]
        made = [
            conv(R, kernels[0].shape[:2], strides=(sh, 1), padding=padding, use_bias=False),
            conv(N, kernels[1].shape[:2], strides=(1, sw), padding=padding, **last),
        ]
    else:
        R, size = kernels[0].shape[-1], kernels[1].shape[:2]
        common = {"strides": (sh, sw), "padding": padding, "use_bias": False}
        middle = (
            depthwise(size, **common)
            if method == "cp"
            else conv(kernels[1].shape[-1], size, **common)
        )
        made = [conv(R, 1, use_bias=False), middle, conv(N, 1, **last)]
    return keras.Sequential(made, name=layer.name)


def _cloned(
    model: Any, replaced: Callable[[Any], Any], weights: Callable[[Any], list[Array]]
) -> Any:
    import keras

    made = keras.models.clone_model(model, clone_function=replaced)
    for layer in model.layers:
        made.get_layer(layer.name).set_weights(weights(layer))
    return made


def pruned(model: Any, limit: float) -> Any:
    """Return the network with fewer channels, those of the least magnitude by torch-pruning."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        graph, arrays = _described(model)
        (folder / "graph.json").write_text(json.dumps(graph))
        np.savez(folder / "weights.npz", **arrays)
        words = (folder / "graph.json", folder / "weights.npz", limit, folder / "pruned.npz")
        program("torch-pruning", "torch_pruning_channels.py", *words)
        found = dict(np.load(folder / "pruned.npz"))

    def own(layer: Any) -> list[Array]:
        names = (f"{layer.name}.{i}" for i in range(len(layer.get_weights())))
        return [found[one] for one in names]

    def replaced(layer: Any) -> Any:
        config = layer.get_config()
        for size in ("filters", "units"):
            if size in config:
                config[size] = own(layer)[0].shape[-1]
        config.pop("build_config", None)
        return type(layer).from_config(config)

    return _cloned(model, replaced, own)


def _described(model: Any) -> tuple[list[dict[str, Any]], dict[str, Array]]:
    """Return the layers in order, as another framework may build them, and their weights."""
    import keras

    graph, arrays = [], {}
    for layer in keras.Model(model.inputs, model.outputs).layers:  # a Sequential hides its input
        given = layer.input if isinstance(layer.input, list) else [layer.input]
        config = layer.get_config()
        known = ("strides", "kernel_size", "pool_size", "activation", "epsilon", "scale", "padding")
        graph.append(
            {
                "name": layer.name,
                "kind": type(layer).__name__,
                "inputs": [tensor._keras_history.operation.name for tensor in given],
                "shape": list(given[0].shape[1:]) if given else list(layer.output.shape[1:]),
                **{key: config[key] for key in known if key in config},
            }
        )
        arrays |= {f"{layer.name}.{i}": array for i, array in enumerate(layer.get_weights())}
    return graph, arrays
