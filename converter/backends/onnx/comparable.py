"""What of a graph can be compared image by image: its outputs, or what is selected from."""

from __future__ import annotations

from collections.abc import Set

from dsconvert.formats.onnx.graph import OnnxGraph, is_op, reads_of
from dsconvert.formats.onnx.outputs import not_numeric
from dsconvert.formats.onnx.shapes import inferred
from dsconvert.formats.onnx.tensors import STRING

_SELECTING = ("NonMaxSuppression", "NonZero", "Compress", "Unique")
"""Operators whose results are as many as the values decide."""
_LISTING = ("SplitToSequence", "SequenceConstruct", "ZipMap", "Optional")
"""Operators whose results are no tensors."""


def comparable_outputs(graph: OnnxGraph) -> tuple[str, ...]:
    """Return the values that say how close a rewritten graph is, of one shape for every image.

    Boxes that NMS selects are another number for each image. In their place stand the boxes and
    scores that it selects from; and what a list, a map or the names of classes are made of in
    theirs.

    Args:
        graph: The graph.

    Returns:
        Names of outputs, then of values before operators that select; the outputs alone where a
        convolution would then be seen in none.
    """
    varying: set[str] = set()
    before: list[str] = []
    texts = _texts(graph) if not_numeric(graph.model) else set()
    made = {name for node in graph.depending_on_data for name in node.output}
    for node in graph.depending_on_data:
        names = not texts.isdisjoint(node.output) or node.op_type in _LISTING
        if is_op(node, *_SELECTING) or (names and varying.isdisjoint(reads_of(node))):
            before += [name for name in reads_of(node) if name in made]
        elif varying.isdisjoint(reads_of(node)):
            continue
        varying.update(name for name in node.output if name)
    kept = [name for name in graph.outputs if name not in varying]
    if len(kept) == len(graph.outputs):
        return tuple(kept)
    found = dict.fromkeys([*kept, *(name for name in before if name not in varying)])
    needed = set(found)
    for node in reversed(graph.depending_on_data):
        if not needed.isdisjoint(node.output):
            needed.update(reads_of(node))
        elif is_op(node, "Conv"):  # it works behind the selection, or beside it
            return tuple(graph.outputs)
    return tuple(found)


def _texts(graph: OnnxGraph) -> Set[str]:
    """Return the values that hold strings."""
    try:
        found = inferred(graph.model, graph.folder)
    except Exception:  # whatever onnx raises; what is declared is known all the same
        found = {}
    return {
        *not_numeric(graph.model),
        *(name for name, (_, kind) in found.items() if kind == STRING),
    }
