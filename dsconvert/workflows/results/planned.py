"""What planning came to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import msgspec

from dsconvert.base.tables import Block, Shown, Table
from dsconvert.converter.core.fitting.styles import block_style

from .. import formatting

if TYPE_CHECKING:
    from dsconvert.converter.core.types import Figure, Plan, Totals
    from dsconvert.models.data.preprocess import Preprocessing
    from dsconvert.models.evaluation.metrics.metric import MetricValue
    from dsconvert.models.training.refine import Refinement


_CYCLES = "cycles"
"""The unit of what Vela estimates; all else is measured."""


class NetworkTimes(msgspec.Struct, frozen=True, kw_only=True):
    """The original and the rewritten network on the plan's target.

    Attributes:
        unit: "ms" (p50) or "cycles".
        before: The original.
        after: The rewritten network.
        predicted: What the plan said of it.
        error: (after − predicted) / after.
        ratio_low: Lower end of the 95 % interval of after / before.
        ratio_high: The upper end.
    """

    unit: str
    before: float
    after: float
    predicted: float
    error: float
    ratio_low: float
    ratio_high: float


class MemoryUse(msgspec.Struct, frozen=True, kw_only=True):
    """What the .tflite files need on a microcontroller, in bytes.

    Attributes:
        precision: "float32" or "int8".
        arena_before: The original's activations, by the planner of TensorFlow Lite for
            Microcontrollers; what the interpreter keeps besides is not in it.
        arena_after: The rewritten network's.
        flash_before: The size of the original's file.
        flash_after: Of the rewritten network's.
    """

    precision: str
    arena_before: int
    arena_after: int
    flash_before: int
    flash_after: int


class AccuracySearch(msgspec.Struct, frozen=True, kw_only=True):
    """What a search by accuracy came to.

    Attributes:
        allowed: The most that might be lost, in the metric's unit: 0.01 for a point of a share.
        lost: What the plan loses.
        original: The original's value.
        metric: What was measured, as ``--metric`` takes it.
        title: Its name for people.
        unit: "share", "dB" or "".
        tried: What each plan tried loses, with its goal.
        refined: What the refinement of the plan's network came to before it was judged; None where
            it was judged as it was fitted.
    """

    allowed: float
    lost: float
    original: float
    metric: str = "top1"
    title: str = "top-1"
    unit: str = "share"
    tried: tuple[tuple[str, float], ...]
    refined: Refinement | None = None


class PlanResult(Shown, msgspec.Struct, frozen=True, kw_only=True):
    """A plan, and its file if one was written.

    Attributes:
        model: The model that it is for.
        calibration: Where the calibration images came from.
        output: The file that was written; empty if none was.
        plan: Its content.
        timed: What the networks were measured to cost; None where only MACs were planned.
        memory: What the files need on a microcontroller; None where nobody asked.
        missed: By how much it misses the latency or memory asked for; empty if it does not.
        dropped: The search by accuracy, if one was asked for.
        preprocessing: What was done to the calibration images.
    """

    schema: Literal["dsconvert.planned/1"] = "dsconvert.planned/1"
    model: str
    calibration: str
    output: str = ""
    plan: Plan
    timed: NetworkTimes | None = None
    memory: MemoryUse | None = None
    missed: str = ""
    dropped: AccuracySearch | None = None
    preprocessing: Preprocessing

    @property
    def passed(self) -> bool:
        """Tell whether the network keeps the latency and the memory asked for."""
        return not self.missed

    def blocks(self) -> Iterator[Block]:
        """Yield one line per convolution, then the network before and after."""
        plan = self.plan
        if self.missed:
            yield f"NOT reached: {self.missed}."
            yield "Ask for less, or plan for int8 (--precision int8). No better plan was found."
        yield _layers(plan)
        if plan.target:
            yield f"target: {plan.target}"
        yield from plan.notes
        if plan.before is not None and plan.after is not None:
            yield _summary(plan, plan.before, plan.after)
        if self.timed is not None:
            yield _timing(self.timed)
        if self.memory is not None:
            yield _memory(self.memory)
        if self.dropped is not None:
            yield from _accuracy(self.dropped, bool(plan.chosen))


def _layers(plan: Plan) -> Table:
    numbers = ("output error", "fit", plan.unit or "cost")
    table = Table(("layer", "becomes"), numbers, least=("output error",))
    for layer in plan.layers:
        cost = _cost(layer.cost_before, layer.cost_after, plan.unit)
        if layer.choice is None:
            table.add(
                layer.name, f"stays: {layer.reason.text if layer.reason else ''}", "", "", cost
            )
            continue
        effect, choice = layer.effect, layer.choice
        lowered = " (depth_multiplier)" if choice.lowering == "multiplier" else ""
        table.add(
            layer.name,
            f"{block_style(choice.block).text(choice)}{lowered}",
            f"{effect.output_error:.3g}" if effect else "",
            formatting.fit(effect.data_error) if effect else "",
            cost,
        )
    measured = any(layer.cost_before or layer.cost_after for layer in plan.layers)
    return table if measured else table.without(plan.unit or "cost")


def _cost(before: Figure | None, after: Figure | None, unit: str) -> str:
    if before is None:
        return ""
    told = _amount(before.value, unit, 3)
    if after is None:
        return told
    ratio = f"({after.ratio_low:.2f} to {after.ratio_high:.2f})"
    return f"{told} → {_amount(after.value, unit, 3)} {ratio}"


def _amount(cost: float, unit: str, digits: int = 4) -> str:
    """Return a cost: cycles as `profile` tells them, times with some digits."""
    return formatting.short(cost) if unit == _CYCLES else f"{cost:.{digits}g}"


def _summary(plan: Plan, before: Totals, after: Totals) -> str:
    parts = []
    if before.macs is not None:
        parts.append(f"MACs {formatting.short(before.macs)} → {formatting.short(after.macs)}")
    parts.append(f"parameters {before.params:,} → {after.params:,}")
    if before.cost is not None:
        costs = [_amount(cost or 0, plan.unit) for cost in (before.cost, after.cost)]
        parts.append(f"{' → '.join(costs)} {plan.unit} predicted")
    parts.append(f"output error {after.output_error:.3g}")
    return f"{len(plan.chosen)} of {len(plan.layers)}: {', '.join(parts)}"


def _timing(timed: NetworkTimes) -> str:
    ratio = f"{timed.ratio_low:.2f} to {timed.ratio_high:.2f} of it"
    before, after, predicted = (
        _amount(cost, timed.unit) for cost in (timed.before, timed.after, timed.predicted)
    )
    how = "estimated for the whole network" if timed.unit == _CYCLES else "measured"
    return (
        f"{how}: {before} → {after} {timed.unit} ({ratio}); the prediction "
        f"was {predicted}, off by {100 * timed.error:+.1f} %"
    )


def _memory(use: MemoryUse) -> str:
    kib = [
        f"{before / 1024:.1f} → {after / 1024:.1f} KiB"
        for before, after in (
            (use.arena_before, use.arena_after),
            (use.flash_before, use.flash_after),
        )
    ]
    return f".tflite in {use.precision}: arena {kib[0]}, flash {kib[1]}"


def _accuracy(dropped: AccuracySearch, rewritten: bool) -> Iterator[str]:
    unit = dropped.unit
    for goal, lost in dropped.tried:
        yield f"tried {goal}: lost {formatting.loss(lost, unit)}"
    yield (
        f"{dropped.title} {formatting.amount(dropped.original, unit)}; the plan loses "
        f"{formatting.loss(dropped.lost, unit)} "
        f"(allowed: {formatting.loss(dropped.allowed, unit)})"
        + (f", {_judged(dropped.refined)}" if rewritten else "")
    )


def _judged(refined: Refinement | None) -> str:
    """Tell in which state the plan's network was judged, and how `rewrite` makes it again."""
    if refined is None:
        return "judged as fitted; rewrite --refine 0 makes that network"
    if not refined.kept:
        return f"judged as fitted: a refinement in {refined.steps} steps was not kept"
    return (
        f"judged after {refined.seconds:.0f} s of refinement; "
        f"rewrite --refine {refined.steps}steps makes that network"
    )


class SweepPoint(msgspec.Struct, frozen=True, kw_only=True):
    """One plan of a sweep.

    Attributes:
        totals: The network as planned.
        pairs: T of each convolution that becomes another, by name; of a three-factor block the
            pairs that would cost as much.
        channels: R of each convolution that becomes a three-factor block, by name.
        top1: Accuracy of the network rewritten so, where labelled data were given.
        metric: What it was judged by on the data, with its interval; top-1 too.
    """

    totals: Totals
    pairs: dict[str, int]
    channels: dict[str, int] = msgspec.field(default_factory=dict)
    top1: float | None = None
    metric: MetricValue | None = None


def _forms(point: SweepPoint) -> Iterator[str]:
    """Yield "T2" for two pairs and "R80" for a three-factor block of 80 channels."""
    for name, pairs in point.pairs.items():
        yield f"R{point.channels[name]}" if name in point.channels else f"T{pairs}"


class SweepResult(Shown, msgspec.Struct, frozen=True, kw_only=True):
    """The trade of output error for cost.

    Attributes:
        model: The model.
        output: The file that was written, if one was asked for.
        target: What the costs were measured on; empty for MACs.
        unit: Of the costs.
        points: Plans of least output error, the untouched network first.
    """

    schema: Literal["dsconvert.sweep/1"] = "dsconvert.sweep/1"
    model: str
    output: str
    target: str
    unit: str
    points: tuple[SweepPoint, ...]

    def blocks(self) -> Iterator[Block]:
        """Yield one line per plan."""
        title = next((point.metric.title for point in self.points if point.metric), "")
        timed = any(point.totals.cost is not None for point in self.points)
        numbers = (self.unit or "cost", "output error", title, "rewritten")
        table = Table(("MACs", "parameters"), numbers, ("T or R",))
        for point in self.points:
            totals = point.totals
            table.add(
                formatting.short(totals.macs),
                f"{totals.params:,}",
                "–" if totals.cost is None else _amount(totals.cost, self.unit),
                f"{totals.output_error:.3g}",
                "" if point.metric is None else formatting.metric(point.metric),
                str(len(point.pairs)),
                " ".join(_forms(point)),
            )
        table = table if title else table.without("")
        yield table if timed else table.without(self.unit or "cost")
        if self.target:
            yield f"target: {self.target}"
        if self.output:
            yield self.output
