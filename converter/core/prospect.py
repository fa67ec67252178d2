"""All that a plan is chosen from: what each layer may become, what that costs, what it harms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np

from .errors import InputError
from .limits import Limit
from .selection import Infeasible, Option, frontier, knee, least_cost, least_harm, total
from .types import Choice, ConvSpec, Effect, Figure, LayerPlan, Plan, Reason, Totals

_POINTS = 24
"""Budgets looked at to find the knee."""


class Candidate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One thing that a layer may become.

    Attributes:
        choice: The pairs, their order and lowering.
        effect: What it alone does.
        macs: Over all calls; None where the size is free.
        params: Weights and bias.
        cost: On the target; None where nothing was measured.
    """

    choice: Choice
    effect: Effect
    macs: int | None
    params: int
    cost: Figure | None = None


class Prospects(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One convolution and its candidates; none where it is left alone, with the reason.

    Attributes:
        name: Its name.
        spec: Its geometry.
        reason: Why it has no candidates.
        macs: Of the convolution over all calls.
        params: Of the convolution.
        cost: Of the convolution on the target.
        candidates: What it may become.
    """

    name: str
    spec: ConvSpec | None
    reason: Reason | None = None
    macs: int | None = None
    params: int = 0
    cost: Figure | None = None
    candidates: tuple[Candidate, ...] = ()


class Goals(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a plan must keep.

    Attributes:
        latency: Of the network, on the target.
        macs: Of the network.
        params: Of the network.
        size: Bytes of the network's weights.
        max_error: The most harm, summed over the layers.
    """

    latency: Limit | None = None
    macs: Limit | None = None
    params: Limit | None = None
    size: Limit | None = None
    max_error: float | None = None

    def words(self) -> tuple[str, ...]:
        """As the user put them."""
        told = [
            f"{name} ≤ {limit.text}"
            for name in ("latency", "macs", "params", "size")
            if (limit := getattr(self, name)) is not None
        ]
        return (*told, *([] if self.max_error is None else [f"harm ≤ {self.max_error:g}"]))


@dataclass(frozen=True)
class Prospect:
    """A network's layers with their candidates, from which any number of plans can be chosen.

    Attributes:
        layers: Every convolution in the order of the network.
        before: The network as it is.
        bytes_per_weight: At the plan's precision.
        target: What costs were measured on, in words; empty if nothing was.
        unit: Of the costs.
        source_sha256: Of the model's file.
        notes: What the reader of any plan should know.
    """

    layers: tuple[Prospects, ...]
    before: Totals
    bytes_per_weight: int = 4
    target: str = ""
    unit: str = ""
    source_sha256: str = ""
    notes: tuple[str, ...] = ()
    _open: tuple[Prospects, ...] = field(init=False)
    _options: tuple[tuple[Option, ...], ...] = field(init=False)

    def __post_init__(self) -> None:
        opened = tuple(layer for layer in self.layers if layer.candidates)
        object.__setattr__(self, "_open", opened)
        object.__setattr__(self, "_options", tuple(map(_options_of, opened)))

    @property
    def resource(self) -> str:
        """What is saved when nothing else is said: time if it was measured, else MACs."""
        if self.target:
            return "cost"
        return "params" if self.before.macs is None else "macs"

    def plan(self, goals: Goals) -> Plan:
        """The plan of least harm that keeps the goals; without goals, the one at the knee.

        Raises:
            InputError: If no plan keeps them, or one asks for what is not known.
        """
        limits = self._limits(goals)
        try:
            if limits:
                chosen = least_harm(self._options, limits)
                note = "the least harm within the goals"
            elif goals.max_error is not None:
                chosen = least_cost(self._options, self.resource, goals.max_error)
                note = f"the least {self._word} within the harm"
            else:
                return self._at_the_knee()
        except Infeasible as error:
            raise self._unreachable(goals, error.least) from error
        if goals.max_error is not None and total(self._options, chosen) > goals.max_error:
            raise InputError(
                f"within {', '.join(goals.words())} the least harm is "
                f"{total(self._options, chosen):.4g}.",
                "Allow more of one or the other.",
            )
        return self._assembled(chosen, goals.words(), (note,))

    def sweep(self, points: int) -> list[Plan]:
        """Plans of least harm at falling budgets of `resource`, the untouched network first."""
        budgets = frontier(self._options, self.resource, points) if self._options else [[]]
        plans = []
        for chosen in budgets:
            plan = self._assembled(chosen, (), ())
            spent = {"cost": plan.after and plan.after.cost, "macs": plan.after and plan.after.macs}
            amount = spent.get(self.resource, plan.after and plan.after.params) or 0
            goal = f"{self._word} ≤ {amount:.4g}{f' {self.unit}' if self.unit else ''}"
            plans.append(msgspec.structs.replace(plan, goal=(goal,)))
        return plans

    # Choosing.

    @property
    def _word(self) -> str:
        return {"cost": "cycles" if self.unit == "cycles" else "time"}.get(
            self.resource, self.resource
        )

    def _limits(self, goals: Goals) -> dict[str, float]:
        """By resource, what is left for the layers that can change."""
        before = self.before
        limits: dict[str, float] = {}
        wanted: dict[str, tuple[Limit | None, float | None, float]] = {
            "cost": (goals.latency, before.cost, 1),
            "macs": (goals.macs, before.macs, 1),
            "params": (goals.params, before.params, 1),
            "size": (goals.size, before.bytes, self.bytes_per_weight),
        }
        for name, (limit, original, unit) in wanted.items():
            if limit is None:
                continue
            if original is None:
                raise InputError(
                    f"the network's {'time was not measured' if name == 'cost' else name}"
                    f"{'' if name == 'cost' else ' are unknown: its image size is free'}.",
                    "Add --runtime litert or ort." if name == "cost" else "Use another target.",
                )
            resource = "params" if name == "size" else name
            fixed = original / unit - total(self._options, self._untouched, resource)
            left = limit.of(original) / unit - fixed
            left += 1e-9 * abs(original / unit)
            limits[resource] = min(left, limits.get(resource, np.inf))
        return limits

    @property
    def _untouched(self) -> list[int]:
        return [0] * len(self._options)

    def _at_the_knee(self) -> Plan:
        if not self._options:
            return self._assembled([], (), ("nothing is worth rewriting",))
        points = frontier(self._options, self.resource, _POINTS)
        costs = [total(self._options, chosen, self.resource) for chosen in points]
        harms = [total(self._options, chosen) for chosen in points]
        best = knee(costs, harms)
        note = (
            f"no goal was given: the knee of {len(points)} plans from "
            f"{costs[0]:.4g} to {costs[-1]:.4g} {self.unit or self.resource} in the layers that "
            f"can change, of harm {harms[0]:.3g} to {harms[-1]:.3g}; beyond it harm rises faster "
            f"than {self._word} falls"
        )
        return self._assembled(points[best], (), (note,))

    def _unreachable(self, goals: Goals, least: Mapping[str, float]) -> InputError:
        told = []
        for resource, amount in least.items():
            original = {"cost": self.before.cost, "macs": self.before.macs}.get(
                resource, self.before.params
            )
            if resource == "harm" or original is None:
                continue
            rest = original - total(self._options, self._untouched, resource)
            unit = self.unit if resource == "cost" else resource
            told.append(f"{amount + rest:.4g} {unit} of {original:.4g}")
        return InputError(
            f"no plan keeps {', '.join(goals.words())}; the least there is: {', '.join(told)}.",
            "Ask for less, or allow more pairs with --max-pairs.",
        )

    # Writing it down.

    def _assembled(
        self, chosen: Sequence[int], goal: tuple[str, ...], notes: tuple[str, ...]
    ) -> Plan:
        picks = {
            layer.name: layer.candidates[index - 1] if index else None
            for layer, index in zip(self._open, chosen, strict=True)
        }
        saved = [(layer, pick) for layer in self._open if (pick := picks[layer.name]) is not None]
        before = self.before
        params = before.params - sum(layer.params - pick.params for layer, pick in saved)
        macs, cost = before.macs, before.cost
        if macs is not None:
            macs -= sum((layer.macs or 0) - (pick.macs or 0) for layer, pick in saved)
        if cost is not None:
            cost -= sum(_value(layer.cost) - _value(pick.cost) for layer, pick in saved)
        return Plan(
            source_sha256=self.source_sha256,
            target=self.target,
            unit=self.unit,
            goal=goal,
            before=before,
            after=Totals(
                macs=macs,
                params=params,
                bytes=params * self.bytes_per_weight,
                cost=cost,
                harm=sum(pick.effect.harm for _, pick in saved),
            ),
            notes=(*self.notes, *notes),
            layers=tuple(_layer_plan(layer, picks.get(layer.name)) for layer in self.layers),
        )


def _value(figure: Figure | None) -> float:
    return 0.0 if figure is None else figure.value


def _options_of(layer: Prospects) -> tuple[Option, ...]:
    def costs(macs: int | None, params: int, cost: Figure | None) -> dict[str, float]:
        known = {"params": float(params)}
        if macs is not None:
            known["macs"] = float(macs)
        if cost is not None:
            known["cost"] = cost.value
        return known

    return (
        Option(0.0, costs(layer.macs, layer.params, layer.cost)),
        *(Option(c.effect.harm, costs(c.macs, c.params, c.cost)) for c in layer.candidates),
    )


def _layer_plan(layer: Prospects, pick: Candidate | None) -> LayerPlan:
    if pick is not None:
        return LayerPlan(
            name=layer.name,
            spec=layer.spec,
            choice=pick.choice,
            effect=pick.effect,
            cost_before=layer.cost,
            cost_after=pick.cost,
        )
    reason = layer.reason
    if reason is None:
        mildest = min(layer.candidates, key=lambda candidate: candidate.effect.harm)
        reason = Reason(
            code="kept",
            text=f"kept by the plan: its mildest choice, {mildest.choice.pairs} × "
            f"{mildest.choice.order}, would add {mildest.effect.harm:.3g} of harm",
        )
    return LayerPlan(name=layer.name, spec=layer.spec, reason=reason, cost_before=layer.cost)
