"""Masks of scores: what lies so far below the largest that a softmax gives it nothing."""

from __future__ import annotations

import numpy as np

from dsconvert.base.predictor import Array

from .graph import OnnxGraph, is_op, key
from .known_sizes import sized_constant_of

FAR = -30.0
"""Relative to the largest score: e^-30 is less than a rounding of float32."""
_BETWEEN = (
    "Add", "Sub", "Mul", "Where", "Max", "Min", "Reshape", "Transpose", "Squeeze", "Unsqueeze",
    "Expand", "Cast", "Identity", "Slice",
)  # fmt: skip
"""Operators between a mask and the softmax that it is for."""


def mask_of(graph: OnnxGraph, name: str) -> Array | None:
    """Return a constant that holds such values; None for anything else."""
    value = sized_constant_of(graph, name)
    holds = value is not None and value.dtype.kind == "f" and bool((value <= FAR).any())
    return value if holds else None


def from_masks(graph: OnnxGraph, name: str) -> dict[str, str]:
    """Return the nodes from such constants down to a value, their types by their first results.

    Args:
        graph: The graph.
        name: The value.
    """
    above: set[str] = set()
    queue = [name]
    while queue:
        maker = graph.makers.get(queue.pop())
        if maker is not None and is_op(maker, *_BETWEEN) and key(maker) not in above:
            above.add(key(maker))
            queue += maker.input
    kept: dict[str, str] = {}
    for node in graph.nodes:  # in their order: what is masked goes down
        masks = key(node) in above and any(mask_of(graph, one) is not None for one in node.input)
        if masks or (key(node) in above and not kept.keys().isdisjoint(node.input)):
            kept[key(node)] = node.op_type
    return kept


def kept_by(graph: OnnxGraph, name: str) -> tuple[str, Array, Array | None] | None:
    """Tell what a value of masked scores is made of.

    Args:
        graph: The graph.
        name: What a softmax reads, or what is cast before it does.

    Returns:
        The scores without the mask; where they are kept, as bools; and what is added to those that
        are kept, if anything. None where it is no such value, or the mask is computed.
    """
    maker = graph.makers.get(name)
    if maker is None or not is_op(maker, "Add", "Where"):
        return None
    if is_op(maker, "Where"):
        condition = sized_constant_of(graph, maker.input[0])
        for place, other in ((1, 2), (2, 1)):
            mask = mask_of(graph, maker.input[place])
            if condition is not None and mask is not None and (mask <= FAR).all():
                return maker.input[other], condition == (place == 2), None
        return None
    for place, other in ((0, 1), (1, 0)):
        mask = mask_of(graph, maker.input[place])
        if mask is not None:
            kept = mask > FAR
            rest = np.where(kept, mask, 0)
            return maker.input[other], kept, rest if rest.any() else None
    return None
