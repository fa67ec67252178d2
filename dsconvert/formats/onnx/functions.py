"""Model-local functions, as newer PyTorch exports them: a body kept once and called often.

Their calls are replaced by the bodies where something inside is to be changed or imported.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from dsconvert.base.errors import require

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto


def inlined(
    model: ModelProto, wanted: Callable[[NodeProto], bool] = lambda node: True
) -> ModelProto:
    """Replace the calls of functions by their bodies.

    Args:
        model: The model; it is not changed.
        wanted: Functions that hold such a node, or call one that does, are inlined.

    Returns:
        A new model; the given one where nothing is to be inlined.
    """
    names = _holding(model, wanted)
    if not names:
        return model
    inliner = require("onnx.inliner", "onnx", "to read .onnx files")
    result: ModelProto = inliner.inline_selected_functions(model, sorted(names))
    return result


def _holding(model: ModelProto, wanted: Callable[[NodeProto], bool]) -> set[tuple[str, str]]:
    """Domain and name of each function that holds a wanted node, itself or by a call."""
    found: set[tuple[str, str]] = set()
    while True:
        more = {
            (function.domain, function.name)
            for function in model.functions
            if any(_calls(node, found) or wanted(node) for node in function.node)
        }
        if more == found:
            return found
        found = more


def _calls(node: NodeProto, functions: set[tuple[str, str]]) -> bool:
    return (node.domain, node.op_type) in functions
