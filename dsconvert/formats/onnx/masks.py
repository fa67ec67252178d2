"""Masks of scores: what lies so far below the largest that a softmax gives it nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dsconvert.base.predictor import Array

from .graph import OnnxGraph, is_op, key
from .known_sizes import sized_constant_of

if TYPE_CHECKING:
    from onnx import NodeProto

FAR = -30.0
"""Relative to the largest score: e^-30 is less than a rounding of float32."""
_NOTHING = -1e8
"""Beside which float32 keeps nothing of a score of a few digits."""
_MOVES = ("Unsqueeze", "Squeeze", "Reshape", "Expand", "Cast", "Identity")
"""Operators that give a mask another form."""
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


class MaskedScores(NamedTuple):
    """Masked scores, where the graph computes which of them are kept.

    Attributes:
        scores: The scores without the mask.
        condition: A value of bools.
        kept: Which of them stand for what is kept.
        moved: The nodes that give the mask its form, in their order.
    """

    scores: str
    condition: str
    kept: bool
    moved: tuple[NodeProto, ...]


def chosen_by(graph: OnnxGraph, name: str) -> MaskedScores | None:
    """Tell what masked scores are made of where a Where chooses between them, or 0, and nothing.

    Args:
        graph: The graph.
        name: What a softmax reads, or what is cast before it does.

    Returns:
        None where it is no such value, or what is masked still counts in float32: in a row that is
        masked as a whole.
    """
    maker = graph.makers.get(name)
    if maker is None or not is_op(maker, "Add", "Where"):
        return None
    if is_op(maker, "Where"):
        far, other = _gone(graph, maker)
        return MaskedScores(other, maker.input[0], far == 2, ()) if far else None
    for place, scores in ((0, maker.input[1]), (1, maker.input[0])):
        moved: list[NodeProto] = []
        mask = graph.makers.get(maker.input[place])
        while mask is not None and is_op(mask, *_MOVES):
            moved.insert(0, mask)
            mask = graph.makers.get(mask.input[0])
        if mask is None or not is_op(mask, "Where"):
            continue
        far, other = _gone(graph, mask)
        rest = sized_constant_of(graph, other) if far else None
        if rest is not None and not rest.any():
            return MaskedScores(scores, mask.input[0], far == 2, tuple(moved))
    return None


def _gone(graph: OnnxGraph, choice: NodeProto) -> tuple[int, str]:
    """Return which input of a Where holds nothing but what is masked, 0 for none, and the other."""
    for place in (1, 2):
        value = sized_constant_of(graph, choice.input[place])
        if value is not None and value.dtype.kind == "f" and bool((value <= _NOTHING).all()):
            return place, choice.input[3 - place]
    return 0, ""
