"""The cheapest of several plans that a costly test still passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Found(Generic[T]):
    """What a search came to.

    Attributes:
        plan: The cheapest that passed, or the least bad of those tried if none did.
        drop: What it lost.
        passed: Whether that is within what was allowed.
        tried: Each plan that was tested and what it lost, in the order of the tests.
    """

    plan: T
    drop: float
    passed: bool
    tried: tuple[tuple[T, float], ...]


def cheapest_within(plans: Sequence[T], drop: Callable[[T], float], allowed: float) -> Found[T]:
    """Bisect for the last plan that loses no more than is allowed.

    Args:
        plans: At least one, falling in cost and, on the whole, rising in what they lose.
        drop: What a plan loses; called at most log2(number of plans) + 1 times.
        allowed: The most that it may lose.
    """
    tried: list[tuple[T, float]] = []
    low, high = 0, len(plans) - 1
    best: tuple[T, float] | None = None
    while low <= high:
        middle = (low + high + 1) // 2
        lost = drop(plans[middle])
        tried.append((plans[middle], lost))
        if lost <= allowed:
            best, low = tried[-1], middle + 1
        else:
            high = middle - 1
    plan, lost = best or min(tried, key=lambda pair: pair[1])
    return Found(plan, lost, best is not None, tuple(tried))
