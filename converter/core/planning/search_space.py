"""All that a plan is chosen from: what each layer may become, what that costs, what it harms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np

from dsconvert.base.errors import DsconvertError, GateFailed, InputError
from dsconvert.base.units import short

from ..fitting.styles import block_style
from ..types import Choice, Figure, LayerPlan, Plan, Reason, Totals
from .arena_rule import ArenaRule, MemoryModel
from .candidates import Candidate, LayerCandidates
from .goals import WORDS, Goals
from .integer_program import (
    TOLERANCE,
    Infeasible,
    Option,
    frontier,
    knee,
    least_cost,
    least_output_error,
    total,
)
from .limits import Limit

_POINTS = 24
"""Budgets looked at to find the knee."""


@dataclass(frozen=True)
class SearchSpace:
    """A network's layers with their candidates, from which any number of plans can be chosen.

    Attributes:
        layers: Every convolution in the order of the network.
        before: The network as it is.
        bytes_per_weight: At the plan's precision.
        target: What costs were measured on, in words; empty if nothing was.
        unit: Of the costs.
        source_sha256: Of the model's file.
        notes: What the reader of any plan should know.
        memory: Tells what plans need on a microcontroller; None where nobody asked.
    """

    layers: tuple[LayerCandidates, ...]
    before: Totals
    bytes_per_weight: int = 4
    target: str = ""
    unit: str = ""
    source_sha256: str = ""
    notes: tuple[str, ...] = ()
    memory: MemoryModel | None = None
    _open: tuple[LayerCandidates, ...] = field(init=False)
    _options: tuple[tuple[Option, ...], ...] = field(init=False)

    def __post_init__(self) -> None:
        opened = tuple(layer for layer in self.layers if layer.candidates)
        object.__setattr__(self, "_open", opened)
        options = tuple(_options_of(layer, self.memory) for layer in opened)
        object.__setattr__(self, "_options", options)

    @property
    def resource(self) -> str:
        """Return what is saved when nothing else is said: time if it was measured, else MACs."""
        if self.target:
            return "cost"
        return "params" if self.before.macs is None else "macs"

    def plan(self, goals: Goals, refused: Sequence[Mapping[str, Choice]] = ()) -> Plan:
        """The plan of least output error that keeps the goals; without goals, the one at the knee.

        Args:
            goals: What it must keep.
            refused: Choices that were found to need too large an arena; another plan is found.

        Raises:
            InputError: If no plan keeps them, or one asks for what is not known.
            GateFailed: If no plan keeps them, and they are about a microcontroller's memory.
        """
        limits, rule = self._limits(goals), self._rule(goals, refused)
        try:
            if limits or (rule is not None and goals.max_error is None):
                chosen = least_output_error(self._options, limits, rule)
                note = "the least output error predicted to keep the goals"
            elif goals.max_error is not None:
                chosen = least_cost(self._options, self.resource, goals.max_error, rule=rule)
                note = f"the least {self._word} within the output error"
            else:
                return self._at_the_knee()
        except Infeasible as error:
            raise self._unreachable(goals, error.least, rule) from error
        most, made = goals.max_error, total(self._options, chosen)
        if most is not None and made > most * (1 + 2 * TOLERANCE):
            kept = msgspec.structs.replace(goals, max_error=None).words()
            raise InputError(
                f"within {', '.join(kept)} the least output error is {made:.3g}; "
                f"{most:g} is allowed.",
                "Allow more of one or the other.",
                code="error-not-reachable",
            )
        return self._assembled(chosen, goals.words(), (note,))

    def sweep(self, points: int, goals: Goals | None = None) -> list[Plan]:
        """Plans of least output error at falling budgets of `resource`, all within the goals.

        Without goals the first one is the untouched network, or what saves at no output error at
        all.

        Raises:
            InputError: If no plan keeps the goals, or one asks for what is not known.
            GateFailed: If no plan keeps them, and they are about a microcontroller's memory.
        """
        goals = goals or Goals()
        limits, rule = self._limits(goals), self._rule(goals)
        if goals.max_error is not None:
            limits["output_error"] = goals.max_error
        try:
            budgets = frontier(self._options, self.resource, points, limits, rule)
        except Infeasible as error:
            raise self._unreachable(goals, error.least, rule) from error
        return [self._budgeted(self._assembled(chosen, (), ())) for chosen in budgets]

    # Choosing.

    @property
    def _word(self) -> str:
        if self.resource == "cost":
            return "cycles" if self.unit == "cycles" else "time"
        return WORDS[self.resource]

    def _unit_of(self, resource: str) -> str:
        return {"cost": self.unit, "size": "bytes", "flash": "bytes of flash", **WORDS}[resource]

    def _budgeted(self, plan: Plan) -> Plan:
        """Return the plan with what it comes to as its goal."""
        assert plan.after is not None, "a search space's plans have totals"
        resource, after = self.resource, plan.after
        amount = {"cost": after.cost, "macs": after.macs, "params": after.params}[resource]
        if amount is None:  # only the layers were measured, not the network
            amount = sum(
                _value(layer.cost_after if layer.choice else layer.cost_before)
                for layer in plan.layers
            )
        unit = f" {self.unit}" if self._word == "time" else ""
        goal = f"{self._word} ≤ {short(amount)}{unit}"
        return msgspec.structs.replace(plan, goal=(goal,))

    def _limits(self, goals: Goals) -> dict[str, float]:
        """By resource, what is left for the layers that can change."""
        before = self.before
        limits: dict[str, float] = {}
        wanted: dict[str, tuple[Limit | None, float | None, float]] = {
            "cost": (goals.limit("latency"), before.cost, 1),
            "macs": (goals.limit("macs"), before.macs, 1),
            "params": (goals.limit("params"), before.params, 1),
            "size": (goals.limit("size"), before.bytes, self.bytes_per_weight),
            "flash": (goals.limit("flash"), None if self.memory is None else self.memory.flash, 1),
        }
        for name, (limit, original, unit) in wanted.items():
            if limit is None:
                continue
            if original is None:
                raise _unknown(name)
            if name == "cost" and self.unit == "cycles" and not limit.relative:
                raise InputError(
                    f"{self.target} gives cycles, and {limit.text!r} is a time.",
                    "Write a share of the original, as 0.5x.",
                    code="target-in-cycles",
                )
            resource = "params" if name == "size" else name
            fixed = original / unit - total(self._options, self._untouched, resource)
            left = limit.of(original) / unit - fixed
            left += 1e-9 * abs(original / unit)
            limits[resource] = min(left, limits.get(resource, np.inf))
        return limits

    def _rule(self, goals: Goals, refused: Sequence[Mapping[str, Choice]] = ()) -> ArenaRule | None:
        """Return what keeps the arena within its limit; None without one."""
        limit = goals.limit("arena")
        if limit is None:
            return None
        if self.memory is None:
            raise _unknown("arena")
        options = [
            (layer.name, (None, *(each.choice for each in layer.candidates)))
            for layer in self._open
        ]
        return ArenaRule(self.memory, options, limit.of(self.memory.arena), refused)

    @property
    def _untouched(self) -> list[int]:
        return [0] * len(self._options)

    def _at_the_knee(self) -> Plan:
        if not self._options:
            return self._assembled([], (), ())
        points = frontier(self._options, self.resource, _POINTS)
        costs = [total(self._options, chosen, self.resource) for chosen in points]
        output_errors = [total(self._options, chosen) for chosen in points]
        best = knee(costs, output_errors)
        note = (
            f"no goal was given: the knee of {len(points)} plans from {short(costs[0])} to "
            f"{short(costs[-1])} {self._unit_of(self.resource)} in the layers that can change, "
            f"of output error {output_errors[0]:.3g} to {output_errors[-1]:.3g}; beyond "
            f"it output error rises faster "
            f"than {self._word} fall{'s' if self._word == 'time' else ''}"
        )
        if len(points) == 1:
            note = f"no goal was given: no plan has less output error or saves more {self._word}"
        return self._assembled(points[best], (), (note,))

    def _unreachable(
        self, goals: Goals, least: Mapping[str, float], rule: ArenaRule | None
    ) -> DsconvertError:
        """Tell what to say when no plan keeps the goals: how far one could go for each of them."""
        told = []
        before = self.before
        originals = {"cost": before.cost, "macs": before.macs, "params": before.params}
        if self.memory is not None:
            originals["flash"] = self.memory.flash
        for resource, amount in least.items():
            original = originals.get(resource)
            if original is None:
                told.append(f"output error {short(amount)}")
                continue
            rest = original - total(self._options, self._untouched, resource)
            shown, scale = resource, 1
            if resource == "params" and goals.params is None:
                shown, scale = "size", self.bytes_per_weight
            told.append(
                f"{short((amount + rest) * scale)} of {short(original * scale)} "
                f"{self._unit_of(shown)}"
            )
        if rule is not None and self.memory is not None and rule.tried:
            told.append(
                f"{short(rule.least)} of {short(self.memory.arena)} bytes of arena among the "
                f"{rule.tried} {'plan' if rule.tried == 1 else 'plans'} looked at"
            )
        each = ", each by itself" if len(told) > 1 else ""
        message = (
            f"no plan keeps {', '.join(goals.words())}; the least there is: "
            f"{', '.join(told)}{each}."
        )
        hint = "Ask for less; dsconvert sweep shows what there is to be had."
        if any(layer.reason and layer.reason.code == "quantized" for layer in self.layers):
            hint = (
                "Convolutions that are quantized already stay: add --dequantize to plan for float."
            )
        if goals.memory:  # what plans need is found by work, as a gate's verdict is
            return GateFailed(message, hint, code="memory-not-reachable")
        return InputError(message, hint, code="target-not-reachable")

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
            before=msgspec.structs.replace(before, **self._memory_of({})),
            after=Totals(
                macs=macs,
                params=params,
                bytes=params * self.bytes_per_weight,
                cost=cost,
                output_error=sum(pick.effect.output_error for _, pick in saved),
                **self._memory_of({layer.name: pick.choice for layer, pick in saved}),
            ),
            notes=(*self.notes, *(notes if self._open else ("nothing is worth rewriting",))),
            layers=tuple(_layer_plan(layer, picks.get(layer.name)) for layer in self.layers),
        )

    def _memory_of(self, chosen: Mapping[str, Choice]) -> dict[str, int]:
        """Return the arena and the flash of a plan, where somebody asked for them."""
        memory = self.memory
        if memory is None:
            return {}
        saved = sum(
            memory.flash_of(layer.spec, None) - memory.flash_of(layer.spec, chosen[layer.name])
            for layer in self._open
            if layer.spec is not None and layer.name in chosen
        )
        return {"arena": memory.arena_with(chosen), "flash": round(memory.flash - saved)}


def _unknown(name: str) -> InputError:
    if name in ("arena", "flash"):
        return InputError(
            f"the {name} of plans is not known here.",
            "Give search_space() a memory model, as dsconvert.plan does.",
            code="not-measured",
        )
    if name == "cost":
        return InputError(
            "the network's time was not measured.",
            "Give search_space() costs and network_cost.",
            code="not-measured",
        )
    return InputError(
        f"the network's {WORDS[name]} are unavailable: the input has no fixed size.",
        "Give it with --input-size HxW; or limit parameters, size or latency instead.",
        code="size-unknown",
    )


def _value(figure: Figure | None) -> float:
    return 0.0 if figure is None else figure.value


def _options_of(layer: LayerCandidates, memory: MemoryModel | None) -> tuple[Option, ...]:
    def costs(
        choice: Choice | None, macs: int | None, params: int, cost: Figure | None
    ) -> dict[str, float]:
        known = {"params": float(params)}
        if memory is not None and layer.spec is not None:
            known["flash"] = memory.flash_of(layer.spec, choice)
        if macs is not None:
            known["macs"] = float(macs)
        if cost is not None:
            known["cost"] = cost.value
        return known

    return (
        Option(0.0, costs(None, layer.macs, layer.params, layer.cost)),
        *(
            Option(c.effect.output_error, costs(c.choice, c.macs, c.params, c.cost))
            for c in layer.candidates
        ),
    )


def _layer_plan(layer: LayerCandidates, pick: Candidate | None) -> LayerPlan:
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
        mildest = min(layer.candidates, key=lambda candidate: candidate.effect.output_error)
        text = block_style(mildest.choice.block).text(mildest.choice)
        reason = Reason(
            code="kept",
            text=f"kept by the plan: its mildest choice, {text}, would add "
            f"{mildest.effect.output_error:.3g} of output error",
        )
    return LayerPlan(name=layer.name, spec=layer.spec, reason=reason, cost_before=layer.cost)
