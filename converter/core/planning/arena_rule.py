"""What a microcontroller must hold, as a limit on plans.

The arena is no sum over the layers: where a tensor lies depends on all that are alive at the same
time. So the integer programme knows nothing of it at first. What it proposes is looked at, the
layers that make the arena too large are found, and what they are at once is forbidden.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

from ..types import Choice, ConvSpec
from .integer_program import Part


class MemoryModel(Protocol):
    """Tells what a network with other blocks in place of its convolutions has to have."""

    @property
    def arena(self) -> int:
        """Bytes of the original's activations."""

    @property
    def flash(self) -> int:
        """Bytes of the original's file."""

    def arena_with(self, chosen: Mapping[str, Choice]) -> int:
        """Return the bytes of the activations with some layers replaced."""
        ...

    def too_large(self, chosen: Mapping[str, Choice], limit: float) -> list[frozenset[str]]:
        """Name the layers that make the arena larger than a limit.

        Args:
            chosen: What replaces which layers; the others are as they were.
            limit: In bytes.

        Returns:
            Sets of layers. What the layers of one set are is enough for the arena to be too large,
            whatever the others are. Empty if the arena is not too large.
        """
        ...

    def flash_of(self, spec: ConvSpec, choice: Choice | None) -> float:
        """Return the bytes that a layer, or what replaces it, takes in the file."""
        ...


class ArenaRule:
    """Forbids what needs too large an arena.

    Args:
        memory: Tells what needs how much.
        options: Of each layer that can change, its name and what it may be; None is itself.
        limit: The largest arena, in bytes.
        refused: Choices that were found too large in another way.

    Attributes:
        least: The smallest arena of the choices that were looked at.
        tried: How many were.
    """

    def __init__(
        self,
        memory: MemoryModel,
        options: Sequence[tuple[str, Sequence[Choice | None]]],
        limit: float,
        refused: Sequence[Mapping[str, Choice]] = (),
    ) -> None:
        self._memory, self._options, self._limit = memory, options, limit
        self._places = {name: place for place, (name, _) in enumerate(options)}
        self._refused = [dict(choice) for choice in refused]
        self.least, self.tried = math.inf, 0

    def broken(self, chosen: Sequence[int]) -> Sequence[Part]:
        """See `integer_program.Rule`."""
        taken = self._taken(chosen)
        self.tried += 1
        self.least = min(self.least, self._memory.arena_with(taken))
        if taken in self._refused:
            return [dict(enumerate(chosen))]
        parts: list[Part] = []
        for names in self._memory.too_large(taken, self._limit):
            fewest = self._fewest(names & self._places.keys(), chosen)
            part = {self._places[name]: chosen[self._places[name]] for name in fewest}
            if part not in parts:
                parts.append(part)
        return parts

    def _taken(self, chosen: Sequence[int]) -> dict[str, Choice]:
        picks = {
            name: ways[index] for (name, ways), index in zip(self._options, chosen, strict=True)
        }
        return {name: choice for name, choice in picks.items() if choice is not None}

    def _fewest(self, names: frozenset[str], chosen: Sequence[int]) -> frozenset[str]:
        """Leave out the layers that may be anything: the arena is too large by the others alone."""
        for name in sorted(names):
            place = self._places[name]
            others = [
                [*chosen[:place], index, *chosen[place + 1 :]]
                for index in range(len(self._options[place][1]))
                if index != chosen[place]
            ]
            if all(self._too_large_by(names, other) for other in others):
                names -= {name}
        return names

    def _too_large_by(self, names: frozenset[str], chosen: Sequence[int]) -> bool:
        found = self._memory.too_large(self._taken(chosen), self._limit)
        return any(guilty & self._places.keys() <= names for guilty in found)
