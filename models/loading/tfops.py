"""TensorFlow functions that tf.keras recorded as layers, read as the Keras layers they equal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from dsconvert.base.errors import InputError

from .graph import is_tensor, tensor
from .tf_functions import FUNCTIONS, operation
from .tree import Config, edit, name_of, objects

Call = tuple[str, Config, list[Any]]
"""A layer's class, its configuration and the tensors that it is called on."""

_RECORDED = ("TFOpLambda", "SlicingOpLambda", "TensorFlowOpLayer")
_CONSTANT = "_CONSTANT_VALUE"


def tf_operations(model: Config) -> tuple[Config, str | None]:
    """Replace TFOpLambda and SlicingOpLambda layers by what in Keras computes the same.

    A function without an equal stays as it is and is refused later, by name.
    """
    read: dict[str, str] = {}

    def change(item: Config) -> Config | None:
        if item["class_name"] == "SlicingOpLambda":
            read[name_of(item)] = "a slice"
            return _slice(item)
        if item["class_name"] != "TFOpLambda":
            return None
        call = _translate(item)
        if call is None:
            done = _as_operation(item)
            if done is not None:
                read[name_of(item)] = f"keras.ops' {done['class_name']}"
            return done
        class_name, config, tensors = call
        name = name_of(item)
        read[name] = class_name
        return {
            "class_name": class_name,
            "config": {"name": name, **config},
            "name": name,
            "inbound_nodes": [[[*tensor[:3], {}] for tensor in tensors]],
        }

    model, _ = edit(model, change)
    if not read:
        return model, None
    return model, "read " + ", ".join(f"{name} as {layer}" for name, layer in read.items())


def refuse_tf_operations(path: Path, model: Config) -> None:
    """Name the TensorFlow functions that no Keras layer stands for.

    Raises:
        InputError: If there are any.
    """
    left = [item for item in objects(model) if item["class_name"] in _RECORDED]
    if left:
        names = ", ".join(_function_of(item) for item in left)
        raise InputError(
            f"{path} records calls of TensorFlow functions without an equal in Keras: {names}.",
            "Rebuild these steps with keras.layers or keras.ops and save the model again.",
            code="unknown-function",
        )


def _slice(item: Config) -> Config:
    """``x[...]`` as the operation that Keras 3 records for it."""
    ref = item["inbound_nodes"][0]
    ref = ref if isinstance(ref[0], str) else ref[0]
    spec = ref[3]["slice_spec"]
    keys = [_index(key) for key in (spec if isinstance(spec, list) else [spec])]
    return {
        "module": "keras.src.ops.numpy",
        "class_name": "GetItem",
        "registered_name": "GetItem",
        "config": {"name": name_of(item)},
        "name": name_of(item),
        "inbound_nodes": [{"args": [tensor(ref), keys], "kwargs": {}}],
    }


def _index(key: Any) -> Any:
    """Return one index of a slice: a number, None, an ellipsis or start:stop:step."""
    if not isinstance(key, dict):
        return key
    if "class_name" in key:
        return {"class_name": key["class_name"], "config": {}}
    return {"class_name": "__slice__", "config": key}


def _function_of(item: Config) -> str:
    """Return the function that a layer records, with the layer."""
    function = item["config"].get("function")
    return f"tf.{function} (layer {name_of(item)})" if function else name_of(item)


def _recorded(item: Config) -> tuple[str, list[Any], Config] | None:
    """Give the function, what it is called on, and its keywords; None where it is called twice."""
    nodes = item.get("inbound_nodes") or []
    function = str(item["config"].get("function", "")).removeprefix("__operators__.")
    if len(nodes) != 1 or not nodes[0]:
        return None
    operands = [nodes[0]] if isinstance(nodes[0][0], str) else nodes[0]
    keywords = {k: v for k, v in operands[0][3].items() if v is not None and k != "name"}
    values = [ref[2] if ref[0] == _CONSTANT else ref for ref in operands]
    return function.removeprefix("math.").removeprefix("nn."), values, keywords


def _translate(item: Config) -> Call | None:
    """Return the layer that computes the same, where there is one."""
    recorded = _recorded(item)
    if recorded is None or recorded[0] not in _TRANSLATIONS:
        return None
    function, values, keywords = recorded
    if any(is_tensor(v) for k, v in keywords.items() if k != "y"):
        return None
    return _TRANSLATIONS[function](values, keywords)


def _as_operation(item: Config) -> Config | None:
    """Return the operation of Keras that computes the same, where there is one."""
    recorded = _recorded(item)
    found = operation(*recorded) if recorded else None
    if recorded is None or found is None:
        return None
    done, operands = found
    name = name_of(item)
    called = [tensor(x) if is_tensor(x) else x for x in operands]
    listed = [called] if FUNCTIONS[recorded[0]].tensors == 0 else called
    return {
        **done,
        "config": {**done["config"], "name": name},
        "name": name,
        "inbound_nodes": [{"args": listed, "kwargs": {}}],
    }


def _is_number(value: Any) -> bool:
    """Tell whether a constant is a number, or one number for each channel."""
    if isinstance(value, list):
        return bool(value) and all(_is_number(v) and not isinstance(v, list) for v in value)
    return isinstance(value, int | float) and not isinstance(value, bool)


def _arithmetic(
    layer: str | None,
    left: Callable[[Any], Config | None],
    right: Callable[[Any], Config | None],
) -> Callable[[list[Any], Config], Call | None]:
    """Return a binary operator.

    Args:
        layer: The layer for two tensors, if there is one.
        left: From a constant c, the Rescaling that is ``c ∘ x``.
        right: From a constant c, the Rescaling that is ``x ∘ c``.
    """

    def translate(values: list[Any], keywords: Config) -> Call | None:
        a, b = values[0], keywords.get("y")
        if is_tensor(a) and is_tensor(b):
            return (layer, {}, [a, b]) if layer else None
        if is_tensor(a) and _is_number(b):
            config = right(b)
            return ("Rescaling", config, [a]) if config else None
        if is_tensor(b) and _is_number(a):
            config = left(a)
            return ("Rescaling", config, [b]) if config else None
        return None

    return translate


def _rescaling(scale: Any, offset: Any) -> Config:
    return {"scale": scale, "offset": offset}


def _mapped(function: Callable[[float], float], value: Any) -> Any:
    return [function(v) for v in value] if isinstance(value, list) else function(value)


def _inverse(value: Any) -> Config | None:
    if 0 in (value if isinstance(value, list) else [value]):
        return None
    return _rescaling(_mapped(lambda v: 1.0 / v, value), 0.0)


def _unary(layer: str, **config: Any) -> Callable[[list[Any], Config], Call | None]:
    """Return a function of one tensor and nothing else."""
    return lambda values, keywords: None if keywords else (layer, config, values)


def _softmax(values: list[Any], keywords: Config) -> Call | None:
    return "Softmax", {"axis": keywords.get("axis", -1)}, values


def _leaky_relu(values: list[Any], keywords: Config) -> Call | None:
    return "LeakyReLU", {"negative_slope": keywords.get("alpha", 0.2)}, values


def _concat(values: list[Any], keywords: Config) -> Call | None:
    if not all(map(is_tensor, values)) or "axis" not in keywords:
        return None
    return "Concatenate", {"axis": keywords["axis"]}, values


def _pooled(layer: str) -> Callable[[list[Any], Config], Call | None]:
    """Return a reduction over height and width."""

    def translate(values: list[Any], keywords: Config) -> Call | None:
        if keywords.get("axis") != [1, 2]:
            return None
        return layer, {"keepdims": bool(keywords.get("keepdims"))}, values

    return translate


def _reshape(values: list[Any], keywords: Config) -> Call | None:
    shape = keywords.get("shape")
    if (
        not isinstance(shape, list)
        or shape[:1] != [-1]
        or not all(isinstance(size, int) and size > 0 for size in shape[1:])
    ):
        return None
    return "Reshape", {"target_shape": shape[1:]}, values


def _bias_add(values: list[Any], keywords: Config) -> Call | None:
    bias = keywords.get("bias")
    if not _is_number(bias) or keywords.get("data_format", "NHWC") != "NHWC":
        return None
    return "Rescaling", _rescaling(1.0, bias), values


def _cast(values: list[Any], keywords: Config) -> Call | None:
    if keywords.get("dtype") != "float32":
        return None
    return "Activation", {"activation": "linear"}, values


_TRANSLATIONS: dict[str, Callable[[list[Any], Config], Call | None]] = {
    "add": _arithmetic("Add", lambda c: _rescaling(1.0, c), lambda c: _rescaling(1.0, c)),
    "subtract": _arithmetic(
        "Subtract",
        lambda c: _rescaling(-1.0, c),
        lambda c: _rescaling(1.0, _mapped(lambda v: -v, c)),
    ),
    "multiply": _arithmetic("Multiply", lambda c: _rescaling(c, 0.0), lambda c: _rescaling(c, 0.0)),
    "truediv": _arithmetic(None, lambda c: None, _inverse),
    "divide": _arithmetic(None, lambda c: None, _inverse),
    "negative": _unary("Rescaling", scale=-1.0, offset=0.0),
    "relu": _unary("ReLU"),
    "relu6": _unary("ReLU", max_value=6.0),
    "sigmoid": _unary("Activation", activation="sigmoid"),
    "tanh": _unary("Activation", activation="tanh"),
    "elu": _unary("Activation", activation="elu"),
    "silu": _unary("Activation", activation="silu"),
    "softmax": _softmax,
    "leaky_relu": _leaky_relu,
    "concat": _concat,
    "reduce_mean": _pooled("GlobalAveragePooling2D"),
    "reduce_max": _pooled("GlobalMaxPooling2D"),
    "reshape": _reshape,
    "bias_add": _bias_add,
    "cast": _cast,
}
