"""One option per layer: an exact optimum by integer programming (HiGHS, through scipy).

Output errors are added up over the layers, and so are costs. Added-up errors of single layers order
plans well even where the true output error is not their sum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from dsconvert.base.quiet import captured

from ..types import Float, as_float

_SCALE = 1e4
"""What the largest term of the objective becomes: HiGHS stops at an absolute gap of 1e-6."""

TOLERANCE = 1e-6
"""By what share of the largest figure HiGHS lets a limit be passed."""

ROUNDS = 500
"""Choices that may break a rule, one after the other, before the search is given up."""


@dataclass(frozen=True)
class Option:
    """One of the things that a layer may be.

    Attributes:
        output_error: What it does to the network's output; 0 for the layer as it is.
        costs: By resource, e.g. "macs", "ms".
    """

    output_error: float
    costs: Mapping[str, float] = field(default_factory=dict)


Layers = Sequence[Sequence[Option]]
Part = Mapping[int, int]
"""The options of some layers: the index of the option by that of the layer."""


class Rule(Protocol):
    """A limit on what is no sum over the layers."""

    def broken(self, chosen: Sequence[int]) -> Sequence[Part]:
        """Return what in a choice breaks the rule, whatever else is chosen; nothing if it is kept.

        Args:
            chosen: The index of the option of each layer.
        """
        ...


class Infeasible(Exception):
    """No choice keeps all limits.

    Attributes:
        least: The least that each limited resource can come to by itself.
    """

    def __init__(self, least: Mapping[str, float]) -> None:
        super().__init__(f"no choice keeps all limits; at least {dict(least)}")
        self.least = dict(least)


def least_output_error(
    layers: Layers, limits: Mapping[str, float], rule: Rule | None = None
) -> list[int]:
    """Return the choice of least total output error whose total costs keep all limits.

    Args:
        layers: The options of each layer, at least one.
        limits: By resource, what the total may come to.
        rule: What the choice must keep besides.

    Returns:
        The index of the option chosen for each layer.

    Raises:
        Infeasible: If no choice keeps the limits.
    """
    return _solve(layers, _values(layers, None), limits, rule)


def least_cost(
    layers: Layers,
    resource: str,
    max_output_error: float,
    limits: Mapping[str, float] | None = None,
    rule: Rule | None = None,
) -> list[int]:
    """The choice of least total cost whose total output error is at most ``max_output_error``.

    Raises:
        Infeasible: If no choice keeps the limits; it is called "output_error" there.
    """
    within = {**(limits or {}), "output_error": max_output_error}
    return _solve(layers, _values(layers, resource), within, rule)


def total(layers: Layers, chosen: Sequence[int], resource: str | None = None) -> float:
    """Return the total cost of a choice, or its total output error."""
    options = (layer[index] for layer, index in zip(layers, chosen, strict=True))
    return float(sum(_value(option, resource) for option in options))


def frontier(
    layers: Layers,
    resource: str,
    points: int,
    limits: Mapping[str, float] | None = None,
    rule: Rule | None = None,
) -> list[list[int]]:
    """Find the choices of least output error at ``points`` budgets, dearest first.

    The dearest is the cheapest of those of least output error. Equal choices are given once,
    dearest first.

    Args:
        layers: The options of each layer, at least one.
        resource: What the budgets are of.
        points: How many budgets.
        limits: By resource, or "output_error", what the total may come to in any case.
        rule: What every choice must keep besides.

    Raises:
        Infeasible: If no choice keeps the limits.
    """
    limits = limits or {}
    mildest = total(layers, least_output_error(layers, limits, rule))
    dearest = total(layers, least_cost(layers, resource, _met(mildest), limits, rule), resource)
    cheapest = total(layers, _solve(layers, _values(layers, resource), limits, rule), resource)
    found: list[list[int]] = []
    for budget in np.linspace(dearest, cheapest, points):
        spent = min(_met(float(budget), dearest), limits.get(resource, np.inf))
        chosen = least_output_error(layers, {**limits, resource: spent}, rule)
        if chosen not in found:
            found.append(chosen)
    return found


def knee(costs: Sequence[float], output_errors: Sequence[float]) -> int:
    """Return the point farthest below the chord from the first to the last (Satopää et al., 2011).

    Args:
        costs: Falling.
        output_errors: Rising.
    """
    x, y = _unit(costs), _unit(output_errors)
    return int(np.argmax((1 - x) - y))


def _met(limit: float, scale: float | None = None) -> float:
    """Return a limit that does not fail by the rounding of the very sum that meets it."""
    return limit + 1e-9 * abs(limit if scale is None else scale)


def _unit(values: Sequence[float]) -> Float:
    array = as_float(values)
    spread = float(np.ptp(array))
    return as_float((array - array.min()) / (spread if spread > 0 else 1.0))


def _value(option: Option, resource: str | None) -> float:
    return (
        option.output_error if resource in (None, "output_error") else option.costs[resource or ""]
    )


def _values(layers: Layers, resource: str | None) -> Float:
    return np.array([_value(option, resource) for layer in layers for option in layer])


def _least(layers: Layers, resource: str | None) -> float:
    return float(sum(min(_value(option, resource) for option in layer) for layer in layers))


def _possible(layers: Layers, limits: Mapping[str, float]) -> np.ndarray[Any, Any]:
    """Tell of each option whether the limits can be kept with it: if all others take the least.

    Without the others no figure is far above its limit, so that what the solver lets pass, a share
    of the largest figure, is little beside the limit, too.
    """
    found = np.ones(sum(map(len, layers)), bool)
    for resource, limit in limits.items():
        left = limit - _least(layers, resource)
        more = [
            _value(option, resource) - min(_value(other, resource) for other in layer)
            for layer in layers
            for option in layer
        ]
        found &= np.array(more) <= _met(left, limit)
    return found


def _solve(
    layers: Layers, objective: Float, limits: Mapping[str, float], rule: Rule | None
) -> list[int]:
    """Solve, forbid what breaks the rule, and solve again: the first that keeps it is the best."""
    cuts: list[Part] = []
    for _ in range(ROUNDS):
        chosen = _best(layers, objective, limits, cuts)
        broken = () if rule is None else rule.broken(chosen)
        if not broken:
            return chosen
        cuts.extend(broken)
    raise Infeasible({resource: _least(layers, resource) for resource in limits})


def _best(
    layers: Layers, objective: Float, limits: Mapping[str, float], cuts: Sequence[Part]
) -> list[int]:
    """Return the best choice within the limits that holds none of the parts."""
    from scipy.optimize import Bounds, LinearConstraint, milp

    if not layers:
        if cuts or any(limit < 0 for limit in limits.values()):
            raise Infeasible(dict.fromkeys(limits, 0.0))
        return []
    sizes = [len(layer) for layer in layers]
    owner = np.repeat(np.arange(len(layers)), sizes)
    one_each = (owner == np.arange(len(layers))[:, None]).astype(float)
    possible = _possible(layers, limits)
    if not all(possible[owner == layer].any() for layer in range(len(layers))):
        raise Infeasible({resource: _least(layers, resource) for resource in limits})
    rows, most = np.empty((len(limits), len(owner))), np.empty(len(limits))
    for place, (resource, limit) in enumerate(limits.items()):
        row = np.where(possible, _values(layers, resource), 0.0)
        scale = max(float(np.abs(row).max()), abs(limit)) or 1.0
        rows[place], most[place] = row / scale, limit / scale
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    parts = np.zeros((len(cuts), len(owner)))
    for row, part in zip(parts, cuts, strict=True):
        row[[starts[layer] + option for layer, option in part.items()]] = 1
    objective = np.where(possible, objective, 0.0)
    largest = float(np.abs(objective).max())
    # HiGHS keeps limits to 1e-6, but its presolve can miss a choice that meets one exactly. So it
    # gets more room at first; what keeps the limits all the same is the best there is.
    for room in (2 * TOLERANCE, 0.0):
        constraints = [LinearConstraint(one_each, 1, 1)]
        if limits:
            constraints.append(LinearConstraint(rows, -np.inf, most + room))
        if cuts:
            constraints.append(LinearConstraint(parts, -np.inf, parts.sum(axis=1) - 1))
        with captured(descriptors=(1,)):  # HiGHS has lines that no option turns off
            result = milp(
                objective * (_SCALE / largest if largest > 0 else 1.0),
                integrality=np.ones(len(objective)),
                bounds=Bounds(0, possible.astype(float)),
                constraints=constraints,
                options={"mip_rel_gap": 0.0},
            )
        if result.x is None:
            break
        picked = [int(np.argmax(np.where(owner == i, result.x, -1.0))) for i in range(len(layers))]
        if not room or np.all(rows[:, picked].sum(axis=1) <= most + TOLERANCE):
            return [int(place - start) for place, start in zip(picked, starts, strict=True)]
    raise Infeasible({resource: _least(layers, resource) for resource in limits})
