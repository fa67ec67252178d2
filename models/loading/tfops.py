"""TensorFlow functions that tf.keras recorded as layers, read as the Keras layers they equal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dsconvert.base.errors import InputError

from .graph import is_tensor, tensor
from .tf_calls import recorded, references, shape_function
from .tf_functions import FUNCTIONS, operation
from .tf_settings import Untranslatable, inner_sizes
from .tree import Config, edit, name_of, objects

Call = tuple[str, Config, list[Any]]
"""A layer's class, its configuration and the tensors that it is called on."""

_RECORDED = ("TFOpLambda", "SlicingOpLambda", "TensorFlowOpLayer")
_LAST = ("NWC", "NHWC", "NDHWC")
"""Layouts with the channels last."""
_EPSILON = 1e-12
"""Of l2_normalize, and of Keras' layer."""


def tf_operations(model: Config) -> tuple[Config, str | None]:
    """Replace TFOpLambda and SlicingOpLambda layers by what in Keras computes the same.

    A function without an equal stays as it is and is refused later, by name.
    """
    read: dict[str, str] = {}

    def change(item: Config) -> Config | None:
        if _is_slice(item):
            read[name_of(item)] = "a slice"
            return _slice(item)
        if item["class_name"] != "TFOpLambda":
            return None
        part = _part(item)
        if part is not None:
            read[name_of(item)] = "a slice"
            return part
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
        others = [one for one in left if not shape_function(one)]  # that take the shapes
        names = ", ".join(_function_of(item) for item in others or left)
        raise InputError(
            f"{path} records calls of TensorFlow functions without an equal in Keras: {names}.",
            "Rebuild these steps with keras.layers or keras.ops and save the model again.",
            code="unknown-function",
        )


def _is_slice(item: Config) -> bool:
    """Tell whether a layer is ``x[…]``; a mask is recorded as one, too."""
    function = item["config"].get("function", "__operators__.getitem")
    return item["class_name"] == "SlicingOpLambda" and str(function).endswith("getitem")


def _slice(item: Config) -> Config:
    """``x[...]`` as the operation that Keras 3 records for it."""
    ref = item["inbound_nodes"][0]
    ref = ref if isinstance(ref[0], str) else ref[0]
    spec = ref[3]["slice_spec"]
    keys = [_index(key) for key in (spec if isinstance(spec, list) else [spec])]
    return _sliced(item, ref, keys)


def _part(item: Config) -> Config | None:
    """Return tf.slice, tf.strided_slice and a crop of images as the slice that they are."""
    function, values, given = recorded(item) or ("", [], {})
    if len(values) != 1 or not is_tensor(values[0]):
        return None
    if function == "slice" and given.keys() == {"begin", "size"}:
        starts, sizes = given["begin"], given["size"]
        if not all(isinstance(n, int) for n in (*starts, *sizes)):
            return None
        ends = [None if n == -1 else s + n for s, n in zip(starts, sizes, strict=True)]
        steps: list[Any] = [None] * len(starts)
    elif function == "strided_slice" and given.keys() == {"begin", "end", "strides"}:
        starts, ends, steps = given["begin"], given["end"], given["strides"]
    elif function == "image.crop_to_bounding_box":
        starts = [given["offset_height"], given["offset_width"]]
        sizes = [given["target_height"], given["target_width"]]
        starts = [0, *starts]
        ends = [None, *(s + n for s, n in zip(starts[1:], sizes, strict=True))]
        steps = [None] * 3
    else:
        return None
    if not all(n is None or isinstance(n, int) for n in (*starts, *ends, *steps)):
        return None
    keys = [
        {"class_name": "__slice__", "config": {"start": start, "stop": end, "step": step}}
        for start, end, step in zip(starts, ends, steps, strict=True)
    ]
    return _sliced(item, values[0], keys)


def _sliced(item: Config, ref: Any, keys: list[Any]) -> Config:
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
    name = name_of(item)
    called = [ref for node in item.get("inbound_nodes") or [] for ref in references(node)]
    lost = "" if called else ", of which tf.keras wrote no tensors that it is called on"
    return f"tf.{function} (layer {name}{lost})" if function else name


def _translate(item: Config) -> Call | None:
    """Return the layer that computes the same, where there is one."""
    call = recorded(item)
    if call is None or call[0] not in _TRANSLATIONS:
        return None
    function, values, keywords = call
    if any(is_tensor(v) for k, v in keywords.items() if k != "y"):
        return None
    return _TRANSLATIONS[function](values, keywords)


def _as_operation(item: Config) -> Config | None:
    """Return the operation of Keras that computes the same, where there is one."""
    call = recorded(item)
    found = operation(*call) if call else None
    if call is None or found is None:
        return None
    done, operands, keywords = found
    name = name_of(item)
    called = [_operand(x) for x in operands]
    listed = [called] if FUNCTIONS[call[0]].tensors == 0 else called
    return {
        **done,
        "config": {**done["config"], "name": name},
        "name": name,
        "inbound_nodes": [{"args": listed, "kwargs": keywords}],
    }


def _operand(value: Any) -> Any:
    """Return what an operation is called on as Keras 3 writes it: a tensor, a number, an array."""
    if is_tensor(value):
        return tensor(value)
    if not isinstance(value, list):
        return value
    whole = all(isinstance(one, int) for one in _flat(value))
    dtype = "int32" if whole else "float32"
    return {"class_name": "__numpy__", "config": {"value": value, "dtype": dtype}}


def _flat(value: Any) -> Iterator[Any]:
    if not isinstance(value, list):
        yield value
        return
    for one in value:
        yield from _flat(one)


def _is_number(value: Any) -> bool:
    """Tell whether a constant is a number, or one number for each channel."""
    if isinstance(value, list):
        return bool(value) and all(_is_number(v) and not isinstance(v, list) for v in value)
    return isinstance(value, int | float) and not isinstance(value, bool)


def _arithmetic(
    left: Callable[[Any], Config | None],
    right: Callable[[Any], Config | None],
) -> Callable[[list[Any], Config], Call | None]:
    """Return a binary operator of a tensor and a constant.

    Two tensors are left to Keras' operations: its layers align tensors of different ranks in
    another way than TensorFlow.

    Args:
        left: From a constant c, the Rescaling that is ``c ∘ x``.
        right: From a constant c, the Rescaling that is ``x ∘ c``.
    """

    def translate(values: list[Any], keywords: Config) -> Call | None:
        a, b = values[0], keywords.get("y")
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


def _bias_add(values: list[Any], keywords: Config) -> Call | None:
    bias = keywords.get("bias")
    if not _is_number(bias) or keywords.get("data_format", "NHWC") != "NHWC":
        return None
    return "Rescaling", _rescaling(1.0, bias), values


def _sum(values: list[Any], keywords: Config) -> Call | None:
    if keywords or len(values) < 2 or not all(map(is_tensor, values)):
        return None
    return "Add", {}, values


def _unit(values: list[Any], keywords: Config) -> Call | None:
    axis = keywords.get("axis")
    if axis is None or keywords.get("epsilon", _EPSILON) != _EPSILON:
        return None
    return "UnitNormalization", {"axis": axis}, values


def _brighter(values: list[Any], keywords: Config) -> Call | None:
    delta = keywords.get("delta")
    return ("Rescaling", _rescaling(1.0, delta), values) if _is_number(delta) else None


def _windows(kind: str, rank: int) -> Callable[[list[Any], Config], Call | None]:
    """Return a pooling over windows."""

    def translate(values: list[Any], keywords: Config) -> Call | None:
        allowed = {"ksize", "strides", "padding", "data_format"}
        if keywords.keys() - allowed or keywords.get("data_format", "NHWC") not in _LAST:
            return None
        ksize, strides, padding = (keywords.get(k) for k in ("ksize", "strides", "padding"))
        if padding not in ("SAME", "VALID") or ksize is None or strides is None:
            return None
        try:
            size, steps = inner_sizes(ksize, rank), inner_sizes(strides, rank)
        except Untranslatable:
            return None
        config = {"pool_size": size, "strides": steps, "padding": padding.lower()}
        return f"{kind}Pooling{rank}D", config, values

    return translate


_TRANSLATIONS: dict[str, Callable[[list[Any], Config], Call | None]] = {
    "add": _arithmetic(lambda c: _rescaling(1.0, c), lambda c: _rescaling(1.0, c)),
    "subtract": _arithmetic(
        lambda c: _rescaling(-1.0, c),
        lambda c: _rescaling(1.0, _mapped(lambda v: -v, c)),
    ),
    "multiply": _arithmetic(lambda c: _rescaling(c, 0.0), lambda c: _rescaling(c, 0.0)),
    "truediv": _arithmetic(lambda c: None, _inverse),
    "divide": _arithmetic(lambda c: None, _inverse),
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
    "bias_add": _bias_add,
    "identity": _unary("Identity"),
    "ensure_shape": lambda values, keywords: ("Identity", {}, values),
    "debugging.check_numerics": lambda values, keywords: ("Identity", {}, values),
    "accumulate_n": _sum,
    "add_n": _sum,
    "l2_normalize": _unit,
    "image.adjust_brightness": _brighter,
    "max_pool": _windows("Max", 2),
    "max_pool2d": _windows("Max", 2),
    "max_pool1d": _windows("Max", 1),
    "avg_pool": _windows("Average", 2),
    "avg_pool2d": _windows("Average", 2),
    "avg_pool1d": _windows("Average", 1),
    "max_pool3d": _windows("Max", 3),
    "avg_pool3d": _windows("Average", 3),
    "keras.backend.batch_flatten": _unary("Flatten"),
}
