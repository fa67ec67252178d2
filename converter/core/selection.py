"""One option per layer: an exact optimum by integer programming (HiGHS, through scipy).

Harms are added up over the layers, and so are costs. Added-up harms of single layers order plans
well even where the true harm is not their sum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from .types import Float, as_float

_SCALE = 1e4
"""What the largest term of the objective becomes: HiGHS stops at an absolute gap of 1e-6."""


@dataclass(frozen=True)
class Option:
    """One of the things that a layer may be.

    Attributes:
        harm: What it does to the network's output; 0 for the layer as it is.
        costs: By resource, e.g. "macs", "ms".
    """

    harm: float
    costs: Mapping[str, float] = field(default_factory=dict)


Layers = Sequence[Sequence[Option]]


class Infeasible(Exception):
    """No choice keeps all limits.

    Attributes:
        least: The least that each limited resource can come to by itself.
    """

    def __init__(self, least: Mapping[str, float]) -> None:
        super().__init__(f"no choice keeps all limits; at least {dict(least)}")
        self.least = dict(least)


def least_harm(layers: Layers, limits: Mapping[str, float]) -> list[int]:
    """The choice of least total harm whose total costs keep all limits.

    Args:
        layers: The options of each layer, at least one.
        limits: By resource, what the total may come to.

    Returns:
        The index of the option chosen for each layer.

    Raises:
        Infeasible: If no choice keeps the limits.
    """
    return _solve(layers, _values(layers, None), limits)


def least_cost(
    layers: Layers, resource: str, max_harm: float, limits: Mapping[str, float] | None = None
) -> list[int]:
    """The choice of least total cost whose total harm is at most ``max_harm``.

    Raises:
        Infeasible: If no choice keeps the limits; harm is called "harm" there.
    """
    return _solve(layers, _values(layers, resource), {**(limits or {}), "harm": max_harm})


def total(layers: Layers, chosen: Sequence[int], resource: str | None = None) -> float:
    """The total cost of a choice, or its total harm."""
    options = (layer[index] for layer, index in zip(layers, chosen, strict=True))
    return float(sum(_value(option, resource) for option in options))


def frontier(layers: Layers, resource: str, points: int) -> list[list[int]]:
    """The least harm at ``points`` budgets between the dearest harmless choice and the cheapest.

    Equal choices are given once, dearest first.
    """
    dearest = total(layers, least_cost(layers, resource, _least(layers, None)), resource)
    cheapest = _least(layers, resource)
    found: list[list[int]] = []
    for budget in np.linspace(dearest, cheapest, points):
        # A budget met exactly must not fail by the rounding of its own sum.
        chosen = least_harm(layers, {resource: float(budget) + 1e-9 * abs(dearest)})
        if chosen not in found:
            found.append(chosen)
    return found


def knee(costs: Sequence[float], harms: Sequence[float]) -> int:
    """The point farthest below the chord from the first to the last (Satopää et al., 2011).

    Args:
        costs: Falling.
        harms: Rising.
    """
    x, y = _unit(costs), _unit(harms)
    return int(np.argmax((1 - x) - y))


def _unit(values: Sequence[float]) -> Float:
    array = as_float(values)
    spread = float(np.ptp(array))
    return as_float((array - array.min()) / (spread if spread > 0 else 1.0))


def _value(option: Option, resource: str | None) -> float:
    return option.harm if resource in (None, "harm") else option.costs[resource or ""]


def _values(layers: Layers, resource: str | None) -> Float:
    return np.array([_value(option, resource) for layer in layers for option in layer])


def _least(layers: Layers, resource: str | None) -> float:
    return float(sum(min(_value(option, resource) for option in layer) for layer in layers))


def _solve(layers: Layers, objective: Float, limits: Mapping[str, float]) -> list[int]:
    from scipy.optimize import Bounds, LinearConstraint, milp

    if not layers:
        return []
    sizes = [len(layer) for layer in layers]
    owner = np.repeat(np.arange(len(layers)), sizes)
    one_each = (owner == np.arange(len(layers))[:, None]).astype(float)
    constraints = [LinearConstraint(one_each, 1, 1)]
    for resource, limit in limits.items():
        row = _values(layers, None if resource == "harm" else resource)
        scale = max(float(np.abs(row).max()), abs(limit)) or 1.0
        constraints.append(LinearConstraint(row[None] / scale, -np.inf, limit / scale))
    largest = float(np.abs(objective).max())
    result = milp(
        objective * (_SCALE / largest if largest > 0 else 1.0),
        integrality=np.ones(len(objective)),
        bounds=Bounds(0, 1),
        constraints=constraints,
        options={"mip_rel_gap": 0.0},
    )
    if result.x is None:
        raise Infeasible({resource: _least(layers, resource) for resource in limits})
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    return [
        int(np.argmax(result.x[start : start + size]))
        for start, size in zip(starts, sizes, strict=True)
    ]
