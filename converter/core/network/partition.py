"""Where to cut a graph of computations into stages, whatever framework it comes from.

Steps are numbered, and so are the values that they read and write.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

Wires = Sequence[Collection[int]]
"""Per step the numbers of the values that it reads, or writes."""


def depth_first(reads: Wires, writes: Wires, outputs: Sequence[int]) -> list[int]:
    """Return the steps that the outputs need, in an order that finishes a branch before the next.

    So a convolution is followed at once by what belongs to it, few values are live at a time, and
    the last layer before a sum knows the other operand.
    """
    writer = {value: step for step, values in enumerate(writes) for value in values}
    ordered: list[int] = []
    done: set[int] = set()
    stack = [(writer[value], False) for value in reversed(outputs) if value in writer]
    while stack:
        step, ready = stack.pop()
        if ready and step not in done:
            done.add(step)
            ordered.append(step)
        elif step not in done:
            stack.append((step, True))
            sources = [writer[value] for value in reads[step] if value in writer]
            stack.extend((source, False) for source in reversed(sources))
    return ordered


def live_at(
    cut: int, reads: Wires, writes: Wires, inputs: Sequence[int], outputs: Sequence[int]
) -> tuple[int, ...]:
    """Values that are known before step ``cut`` and read from there on, or outputs."""
    known = {*inputs, *(value for values in writes[:cut] for value in values)}
    needed = {value for values in reads[cut:] for value in values}
    return tuple(sorted(known & (needed | set(outputs))))
