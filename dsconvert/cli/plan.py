from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dsconvert.base.messages import note
from dsconvert.converter.core.fitting.styles import block_style
from dsconvert.workflows.results import AccuracySearch, NetworkTimes, PlanResult

from . import formatting, options, plan_options, terminal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from dsconvert.converter.core.types import Figure, Plan, Totals
    from dsconvert.models.data.datasets import Data

_STEPS = 16
"""Budgets that a search by accuracy bisects."""


def show(console: Console, result: PlanResult) -> None:
    """One line per convolution, then the network before and after."""
    from rich.table import Table

    plan = result.plan
    table = Table("layer", "becomes", box=None, pad_edge=False)
    for title in ("output error", "data error", plan.unit or "cost"):
        table.add_column(title, justify="right")
    for layer in plan.layers:
        cost = _cost(layer.cost_before, layer.cost_after)
        if layer.choice is None:
            reason = layer.reason.text if layer.reason else ""
            table.add_row(layer.name, f"stays: {reason}", "", "", cost)
            continue
        effect, choice = layer.effect, layer.choice
        lowered = " (depth_multiplier)" if choice.lowering == "multiplier" else ""
        table.add_row(
            layer.name,
            f"{block_style(choice.block).text(choice)}{lowered}",
            f"{effect.output_error:.3g}" if effect else "",
            formatting.percent(effect.data_error) if effect else "",
            cost,
        )
    console.print(table)
    if plan.target:
        console.print(f"target: {plan.target}")
    for remark in plan.notes:
        console.print(remark)
    if plan.before is not None and plan.after is not None:
        console.print(_summary(plan, plan.before, plan.after))
    if result.timed is not None:
        console.print(_timing(result.timed))
    if result.dropped is not None:
        dropped = result.dropped
        for goal, lost in dropped.tried:
            console.print(f"tried {goal}: lost {100 * lost:.2f} points")
        console.print(
            f"top-1 {formatting.percent(dropped.original, 2)}, with the plan "
            f"{100 * dropped.lost:.2f} points less (allowed: {100 * dropped.allowed:.2f})"
        )
    command = shlex.join(
        [
            *("dsconvert", "rewrite", result.model, "--plan", result.output),
            *("--calibration", result.calibration),
            *options.preprocessing_words(result.preprocessing),
        ]
    )
    # A command that is copied must stay on its line.
    console.print(f"{result.output}: {command}", soft_wrap=True)


def _cost(before: Figure | None, after: Figure | None) -> str:
    if before is None:
        return ""
    if after is None:
        return f"{before.value:.3g}"
    return (
        f"{before.value:.3g} → {after.value:.3g} ({after.ratio_low:.2f} to {after.ratio_high:.2f})"
    )


def _summary(plan: Plan, before: Totals, after: Totals) -> str:
    parts = []
    if before.macs is not None:
        parts.append(f"MACs {formatting.short(before.macs)} → {formatting.short(after.macs)}")
    parts.append(f"parameters {before.params:,} → {after.params:,}")
    if before.cost is not None:
        parts.append(f"{before.cost:.4g} → {after.cost:.4g} {plan.unit} predicted")
    parts.append(f"output error {after.output_error:.3g}")
    return f"{len(plan.chosen)} of {len(plan.layers)}: {', '.join(parts)}"


def _timing(timed: NetworkTimes) -> str:
    ratio = f"{timed.ratio_low:.2f} to {timed.ratio_high:.2f} of it"
    return (
        f"measured: {timed.before:.4g} → {timed.after:.4g} {timed.unit} ({ratio}); the prediction "
        f"was {timed.predicted:.4g}, off by {100 * timed.error:+.1f} %"
    )


@click.command()
@click.argument("model", type=options.MODEL)
@options.output("_plan.json", "a .json file")
@plan_options.target
@plan_options.goals
@click.option("--max-drop", metavar="SHARE", help="Search the budget by accuracy: 1% at most.")
@click.option("--data", metavar="DATA", help="Labelled images for --max-drop.")
@click.option("--labels", is_flag=True, help="Says that --data has labels; --max-drop needs them.")
@plan_options.search
@options.overwrite
@options.preprocessing
@options.loading
@options.common
@terminal.speaks(show)
def plan(
    model: Path,
    output: Path | None,
    target_latency: str | None,
    target_macs: str | None,
    target_params: str | None,
    target_size: str | None,
    max_error: float | None,
    max_drop: str | None,
    data: str | None,
    labels: bool,
    overwrite: bool,
    seed: int,
    scale: str | None,
    mean: str | None,
    std: str | None,
    channels_first: bool,
    **rest: Any,
) -> PlanResult:
    """Choose what to rewrite by measured time, and write the choice down as a plan.

    Each convolution of MODEL and what may replace it are timed on the target, and tried out on
    the calibration images; the least output error within the targets is chosen. What does not get
    faster stays. Without a target: what is really faster, at the knee of the curve.
    """
    from dsconvert.base.errors import GateFailed

    output = options.place(model, output, "_plan.json", overwrite, allowed=(".json",))
    goals = plan_options.as_goals(
        target_latency, target_macs, target_params, target_size, max_error
    )
    allowed = _allowed(max_drop, data, labels)
    prepare: dict[str, Any] = {
        "scale": scale,
        "mean": mean,
        "std": std,
        "channels_first": channels_first,
    }
    with plan_options.plan_session(model, goals, seed=seed, prepare=prepare, **rest) as session:
        dropped = None
        if allowed is None:
            chosen = session.search_space.plan(goals)
        else:
            images = plan_options.labelled(session, data or "", seed, prepare)
            chosen, dropped = _search(session, goals, images, allowed)
        timed = _time(session, chosen)
        plan_options.write_json(chosen, output, overwrite)
        result = PlanResult(
            model=str(model),
            calibration=rest["calibration"],
            output=str(output),
            plan=chosen,
            timed=timed,
            dropped=dropped,
            preprocessing=session.data.preprocessing,
        )
    if dropped is not None and dropped.lost > dropped.allowed:
        raise GateFailed(
            f"the goal was not reached: the best plan tried loses {100 * dropped.lost:.2f} points "
            f"of top-1, {100 * dropped.allowed:.2f} are allowed. It is in {output}.",
            "Allow more, ask for less, or fine-tune the rewritten model.",
        )
    return result


def _allowed(max_drop: str | None, data: str | None, labels: bool) -> float | None:
    from dsconvert.base.errors import InputError

    if max_drop is None:
        if data is not None or labels:
            raise InputError("--data and --labels are for --max-drop.", "Add --max-drop 1%.")
        return None
    if data is None or not labels:
        raise InputError("--max-drop needs images with labels.", "Add --data DATA.npz --labels.")
    try:
        share = float(max_drop.removesuffix("%")) / (100 if max_drop.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        raise InputError(
            f"{max_drop!r} is no drop of accuracy.", "Write it as 1% (a point of top-1)."
        )
    return share


def _search(
    session: plan_options.PlanSession, goals: Any, images: Data, allowed: float
) -> tuple[Plan, AccuracySearch]:
    """The cheapest plan that keeps the goals and loses no more accuracy than is allowed."""
    from dsconvert.converter.core.planning.accuracy_search import cheapest_within

    plans: Sequence[Plan] = session.search_space.sweep(_STEPS, goals)
    original = plan_options.top1(session.opened.model, session.opened, images)

    def drop(plan: Plan) -> float:
        rewritten = session.rewrite(plan).model if plan.chosen else session.opened.model
        # Rounded: a point of 1 % must not fail by 1e-17.
        lost = round(original - plan_options.top1(rewritten, session.opened, images), 9)
        note(f"{', '.join(plan.goal)}: lost {100 * lost:.2f} points")
        return lost

    found = cheapest_within(plans, drop, allowed)
    return found.plan, AccuracySearch(
        allowed=allowed,
        lost=found.drop,
        original=original,
        tried=tuple((", ".join(plan.goal), lost) for plan, lost in found.tried),
    )


def _time(session: plan_options.PlanSession, plan: Plan) -> NetworkTimes | None:
    """Build both networks for the target and let them take turns; weights do not matter."""
    target_files, original = session.target_files, session.original
    if target_files is None or original is None or plan.after is None or not plan.chosen:
        return None
    rewritten = target_files.build(session.rewrite(plan, fitted=False).model, "rewritten")
    low = high = None
    if not target_files.target.estimated:
        first, second = target_files.profile(original, rewritten)
        before, after = first.latency.p50_ms, second.latency.p50_ms
        low, high = second.comparison.low, second.comparison.high
    else:
        before, after = target_files.cost(original, rewritten)
    # The original was timed again just now, so the prediction starts from this time.
    predicted = (plan.after.cost or 0.0) - ((plan.before and plan.before.cost) or 0.0) + before
    return NetworkTimes(
        unit=plan.unit,
        before=before,
        after=after,
        predicted=predicted,
        error=(after - predicted) / after,
        ratio_low=after / before if low is None else low,
        ratio_high=after / before if high is None else high,
    )
