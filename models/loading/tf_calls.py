"""Calls of TensorFlow functions as files of tf.keras 2 record them."""

from __future__ import annotations

from typing import Any

from .tree import Config

CONSTANT = "_CONSTANT_VALUE"
"""In the place of a layer's name: what follows is no reference, but the value."""
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
    keywords = {k: v for k, v in operands[0][3].items() if v is not None and k != "name"}
    values = [ref[2] if ref[0] == CONSTANT else ref for ref in operands]
    for prefix in _PREFIXES:
        function = function.removeprefix(prefix)
    return function, values, keywords
