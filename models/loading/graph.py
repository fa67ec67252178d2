"""Repairs of how layers are connected."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .tree import MODEL_CLASSES, Config, counted, edit, is_object, name_of, with_config

Repaired = tuple[Config, str | None]


def is_tensor(value: Any) -> bool:
    """Tell whether a JSON value is an old reference to a tensor: [layer, call, output, …]."""
    return (
        isinstance(value, list)
        and len(value) >= 3
        and isinstance(value[0], str)
        and all(isinstance(index, int) for index in value[1:3])
    )


def own_nodes(model: Config) -> Repaired:
    """Count the calls of a nested model from 0.

    Keras 2 counted a model's own definition as its call 0. Keras 3 counts calls only, except that
    it still expects the old count for a functional model among the outputs.
    """
    shifted: list[Config] = []

    def change(item: Config) -> Config | None:
        nested = {name_of(layer): layer for layer in _layers(item) if _is_old_model(layer)}
        late = {
            name
            for name, layer in nested.items()
            if any(ref[0] == name and ref[1] >= len(layer["inbound_nodes"]) for ref in _refs(item))
        }
        if not late:
            return None
        shifted.extend(nested[name] for name in sorted(late))
        sequential = {name for name in late if nested[name]["class_name"] == "Sequential"}
        layers = [
            {**layer, "inbound_nodes": _shift(layer.get("inbound_nodes"), late)}
            for layer in item["config"]["layers"]
        ]
        outputs = _shift(item["config"]["output_layers"], sequential)
        return with_config(item, layers=layers, output_layers=outputs)

    model, changed = edit(model, change)
    return model, f"counted from 0 the calls of {_named(shifted)}" if changed else None


def keyword_tensors(model: Config) -> Repaired:
    """Mark the tensors among a call's keyword arguments, which Keras 3 would take for lists."""

    def change(item: Config) -> Config | None:
        nodes = item.get("inbound_nodes")
        if not nodes or not any(_keyword_tensors(node) for node in nodes):
            return None
        return {**item, "inbound_nodes": [_modern(node) for node in nodes]}

    model, changed = edit(model, change)
    return model, f"marked the keyword tensors of {counted(changed)}" if changed else None


def without_idle_keywords(nodes: Any) -> Any:
    """Calls without the keyword arguments that say nothing, as ``mask=None``.

    A repair that exchanges a layer's class exchanges its call as well, which may not take them.
    """

    def kept(keywords: Config) -> Config:
        return {
            k: v for k, v in keywords.items() if v is not None and k not in ("mask", "training")
        }

    if isinstance(nodes, dict):
        return {**nodes, "kwargs": kept(nodes.get("kwargs") or {})}
    if is_tensor(nodes):
        return [*nodes[:3], *(kept(v) if isinstance(v, dict) else v for v in nodes[3:])]
    return [without_idle_keywords(node) for node in nodes] if isinstance(nodes, list) else nodes


def input_layers(model: Config) -> Repaired:
    """Begin every Sequential with an InputLayer, where the file knows the shape."""

    def change(item: Config) -> Config | None:
        layers = _layers(item)
        if item["class_name"] != "Sequential" or not layers:
            return None
        first = layers[0]
        shape = _batch_shape(first) or item["config"].get("build_input_shape")
        if first["class_name"] == "InputLayer" or not shape:
            return None
        dtype = first["config"].get("dtype")
        config = {
            "name": f"{name_of(first)}_input",
            "batch_shape": shape,
            "dtype": dtype if isinstance(dtype, str) and dtype.startswith("float") else "float32",
        }
        layer = {"module": "keras.layers", "class_name": "InputLayer", "config": config}
        return with_config(item, layers=[{**layer, "registered_name": None}, *layers])

    model, changed = edit(model, change)
    return model, f"gave an InputLayer to {_named(changed)}" if changed else None


def bare_ends(item: Config) -> Config:
    """Let a model of one input and output take and give a tensor, and not a list of one.

    Keras 2 wrote the list in any case; Keras 3 writes it where a list is meant.
    """
    ends = {key: item["config"].get(key) for key in ("input_layers", "output_layers")}
    bare = {
        key: value[0]
        for key, value in ends.items()
        if isinstance(value, list) and len(value) == 1 and is_tensor(value[0])
    }
    return with_config(item, **bare)


def _layers(item: Config) -> list[Config]:
    layers = item["config"].get("layers")
    return layers if isinstance(layers, list) and all(map(is_object, layers)) else []


def _nodes(layer: Config) -> list[Any]:
    return layer.get("inbound_nodes") or []


def _is_old_model(layer: Config) -> bool:
    nodes = _nodes(layer)
    return layer["class_name"] in MODEL_CLASSES and bool(nodes) and isinstance(nodes[0], list)


def _refs(item: Config) -> Iterator[list[Any]]:
    """Yield every tensor that the layers of a functional model take."""

    def find(value: Any) -> Iterator[list[Any]]:
        if is_tensor(value):
            yield value
        children = value.values() if isinstance(value, dict) else value
        if isinstance(value, dict | list):
            for child in children:
                yield from find(child)

    for layer in _layers(item):
        yield from find(_nodes(layer))
    yield from find(item["config"].get("output_layers", []))


def _shift(value: Any, names: set[str]) -> Any:
    """Return a copy in which the references to these layers point one call earlier."""
    if is_tensor(value) and value[0] in names:
        return [value[0], value[1] - 1, *(_shift(rest, names) for rest in value[2:])]
    if isinstance(value, list):
        return [_shift(child, names) for child in value]
    if isinstance(value, dict):
        return {key: _shift(child, names) for key, child in value.items()}
    return value


def _keyword_tensors(node: Any) -> list[Any]:
    if not isinstance(node, list):
        return []
    return [
        value
        for ref in node
        if is_tensor(ref) and len(ref) > 3
        for value in ref[3].values()
        if is_tensor(value)
    ]


def _modern(node: list[Any]) -> Config:
    """Return a call in the words of Keras 3. The shapes are looked up again when it is rebuilt."""
    tensors = [tensor(ref) for ref in node]
    keywords = node[0][3] if len(node[0]) > 3 else {}
    return {
        "args": tensors if len(tensors) == 1 else [tensors],
        "kwargs": {k: tensor(v) if is_tensor(v) else v for k, v in keywords.items()},
    }


def tensor(ref: list[Any]) -> Config:
    """Return a reference to a tensor in the words of Keras 3."""
    config = {"shape": [], "dtype": "float32", "keras_history": ref[:3]}
    return {"class_name": "__keras_tensor__", "config": config}


def _batch_shape(layer: Config) -> Any:
    """Return the input shape that a first layer carries, its own or that of its own first layer."""
    config = layer["config"]
    shape = config.get("batch_input_shape") or config.get("batch_shape")
    if shape or layer["class_name"] not in MODEL_CLASSES:
        return shape
    layers = _layers(layer)
    return _batch_shape(layers[0]) if layers else None


def _named(models: list[Config]) -> str:
    return ", ".join(f"{item['class_name']} '{name_of(item)}'" for item in models)
