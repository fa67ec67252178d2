"""Calls of TensorFlow functions as files of tf.keras 2 record them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from .graph import is_tensor
from .tree import Config

CONSTANT = "_CONSTANT_VALUE"
"""In the place of a layer's name: what follows is no reference, but the value."""
_SHAPES = ("shape", "size", "rank")
OPERATORS = ("TFOpLambda", "SlicingOpLambda")
"""The layers that record a call."""
_PREFIXES = ("compat.v1.", "math.", "nn.")


def recorded(item: Config) -> tuple[str, list[Any], Config] | None:
    """Give the function, what it is called on, and its keywords; None where it is called twice.

    Args:
        item: A TFOpLambda layer.

    Returns:
        The function without ``compat.v1.``, ``math.`` and ``nn.``; references to tensors, and
        constants; the keywords that are not None.
    """
    nodes = item.get("inbound_nodes") or []
    function = str(item["config"].get("function", "")).removeprefix("__operators__.")
    if len(nodes) != 1 or not nodes[0]:
        return None
    operands = [nodes[0]] if isinstance(nodes[0][0], str) else nodes[0]
    if not all(isinstance(ref[0], str) and len(ref) > 3 for ref in operands):
        return None  # lists of lists
    keywords = {k: v for k, v in operands[0][3].items() if v is not None and k != "name"}
    values = [ref[2] if ref[0] == CONSTANT else ref for ref in operands]
    for prefix in _PREFIXES:
        function = function.removeprefix(prefix)
    return function, values, keywords


def shape_function(layer: Any) -> str:
    """Return which of a tensor's shape, size or rank a layer is; empty for none."""
    if not isinstance(layer, dict) or layer.get("class_name") != "TFOpLambda":
        return ""
    path = str(layer["config"].get("function", ""))
    name = path.removeprefix("compat.v1.")
    return name if name in _SHAPES else ""


def references(value: Any) -> Iterator[list[Any]]:
    """Yield every reference to a tensor."""
    if is_tensor(value) and value[0] != CONSTANT:
        yield value
    elif is_tensor(value):
        value = value[3:]
    if isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from references(one)


def function_of(layer: Config) -> str:
    """Return the function that a layer records, without its module."""
    return str(layer["config"].get("function", "")).rpartition(".")[2]


def call_of(layer: Config) -> tuple[Any, Config]:
    """Return what a function is called on, references in their places, and its keywords."""
    node = layer["inbound_nodes"][0]
    leaf = node
    while isinstance(leaf, list) and leaf and not isinstance(leaf[0], str):
        leaf = leaf[0]
    keywords = leaf[3] if len(leaf) > 3 and isinstance(leaf[3], dict) else {}

    def bare(value: Any) -> Any:
        if isinstance(value, list) and value and isinstance(value[0], str):
            return value[2] if value[0] == CONSTANT else value[:3]
        return [bare(one) for one in value] if isinstance(value, list) else value

    return bare(node), keywords


def with_call(layer: Config, first: Any, keywords: Config) -> Config:
    """Return a layer with another call."""

    def full(value: Any) -> Any:
        if is_tensor(value):
            return [*value[:3], keywords]
        if isinstance(value, list) and any(True for _ in references(value)):
            return [full(one) for one in value]
        return [CONSTANT, -1, value, keywords]

    return {**layer, "inbound_nodes": [full(first)]}


def first_tensor(layer: Config) -> list[Any] | None:
    """Return the one tensor that a function is called on."""
    nodes = layer.get("inbound_nodes")
    if layer.get("class_name") not in OPERATORS or not nodes:
        return None
    first, _ = call_of(layer)
    return first if is_tensor(first) else None


def with_references(value: Any, change: Callable[[list[Any]], Any]) -> Any:
    """Return a copy with something else for each reference."""
    if is_tensor(value):
        return change(value)
    if isinstance(value, list):
        return [with_references(one, change) for one in value]
    if isinstance(value, dict):
        return {key: with_references(one, change) for key, one in value.items()}
    return value
