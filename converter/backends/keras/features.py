"""What a rewritten network is compared by inside: values that its original computes, too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .emit import PART
from .graph import FlatGraph, Step

_SUMS = ("Add",)
"""Layers and operations that add."""
_RELUS = ("ReLU", "Relu", "Relu6", "Activation")
_POOLS = ("MaxPooling2D", "AveragePooling2D", "MaxPool", "AveragePool")

Shared = tuple[int, int]
"""The number of a value in the original's graph, and in that of what was made from it."""


def features(original: FlatGraph, made: FlatGraph) -> list[Shared]:
    """Choose what to compare: images (n, H, W, C) of one shape, in the order of computation.

    Those are the outputs of the convolutions that blocks stand for, and sums of branches after
    their ReLU; pools, where there are neither. What only one of the two computes is left out.

    Args:
        original: The graph of a network.
        made: That of the network rewritten.
    """
    known, replaced = _calls(original), _block_outputs(original, made)
    ours = _calls(made) | replaced
    sums = _steps(original, _SUMS)
    chosen = [original.steps[_after_relu(original, number)].writes[0] for number in sums]
    chosen += [known[place] for place in replaced]
    if not chosen:
        chosen = [original.steps[number].writes[0] for number in _steps(original, _POOLS)]
    names = {value: place for place, value in known.items()}
    pairs = [(value, ours[names[value]]) for value in sorted(set(chosen)) if names[value] in ours]
    return [pair for pair in pairs if _alike(original.symbolic[pair[0]], made.symbolic[pair[1]])]


def _calls(graph: FlatGraph) -> dict[tuple[str, int], int]:
    """Return the first output of each call of each operation, by its name and number."""
    counts: dict[str, int] = {}
    found = {}
    for step in graph.steps:
        name = graph.name_of(step.operation)
        found[name, counts.get(name, 0)] = step.writes[0]
        counts[name] = counts.get(name, 0) + 1
    return found


def _block_outputs(original: FlatGraph, made: FlatGraph) -> dict[tuple[str, int], int]:
    """Return the outputs of what stands for layers that are called once."""
    names = [original.name_of(step.operation) for step in original.steps]
    kept = {made.name_of(step.operation) for step in made.steps}
    gone = {name for name in names if names.count(name) == 1} - kept
    found = {}
    for step in made.steps:
        part = PART.fullmatch(made.name_of(step.operation))
        if part is not None and part["convolution"] in gone:
            found[part["convolution"], 0] = step.writes[0]  # that of its last layer stays
    return found


def _alike(first: Any, second: Any) -> bool:
    return len(first.shape) == 4 and tuple(first.shape) == tuple(second.shape)


def _steps(graph: FlatGraph, kinds: Sequence[str]) -> list[int]:
    """Return the numbers of the steps of some kinds that make images of something."""

    def is_image(step: Step) -> bool:
        return len(graph.symbolic[step.writes[0]].shape) == 4 and bool(step.reads)

    steps = enumerate(graph.steps)
    return [n for n, step in steps if type(step.operation).__name__ in kinds and is_image(step)]


def _after_relu(graph: FlatGraph, number: int) -> int:
    """Return the step of the ReLU that alone reads a step's output; the step itself without one."""
    value = graph.steps[number].writes[0]
    readers = [i for i, step in enumerate(graph.steps) if value in step.reads.values()]
    if len(readers) == 1 and type(graph.steps[readers[0]].operation).__name__ in _RELUS:
        return readers[0]
    return number
