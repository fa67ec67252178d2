"""Choose what to rewrite."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dsconvert.base.arguments import of_kind
from dsconvert.base.messages import note
from dsconvert.base.progress import as_progress

from . import formatting
from .data_for import check_sources
from .model_files import kind_of_source
from .outputs import place, write_json
from .plan_memory import exceeded, within_memory
from .plan_session import (
    PlanOptions,
    PlanSession,
    TargetWish,
    judge_of,
    judged_refined,
    plan_session,
)
from .refine import check_refinement
from .results.planned import AccuracySearch, MemoryUse, NetworkTimes, PlanResult
from .stored_preprocessing import settled

if TYPE_CHECKING:
    from dsconvert.base.progress import Progress
    from dsconvert.converter.core.planning.goals import Goals
    from dsconvert.converter.core.types import Plan
    from dsconvert.deploy.costs import Target
    from dsconvert.models.data.preprocess import Preprocessing
    from dsconvert.models.training.refine import Refinement

    from .accuracy_goal import GoalJudge
    from .data_for import DataSource
    from .model_files import Model, ModelSource

_STEPS = 16
"""Budgets that a search by accuracy bisects."""
_AGAIN = 2
"""Times a plan is made again because the whole network was measured to miss its target."""


@dataclass(frozen=True)
class AccuracyGoal:
    """How much accuracy a plan may cost, and what it is measured on.

    Attributes:
        max_drop: The most that may be lost of the metric in `PlanOptions`: "1%" or 0.01 for a point
            of top-1, mAP and other shares; of others a part, or an amount in the metric's unit.
        data: Images, with labels where the metric needs them.
        refine: How long each network is refined before it is judged, as for `rewrite`: by default
            Keras models for 60 s, others not at all; 0 judges them as they were fitted.

    Example:
        >>> import dsconvert as ds
        >>> ds.AccuracyGoal("1%", "digits.npz").max_drop
        '1%'
    """

    max_drop: str | float
    data: DataSource
    refine: float | str | None = None


def plan(
    model: ModelSource,
    *,
    calibration: DataSource | None,
    goals: Goals | None = None,
    target: Target | TargetWish | None = None,
    accuracy: AccuracyGoal | None = None,
    preprocessing: Preprocessing | None = None,
    options: PlanOptions | None = None,
    output: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress | bool = False,
) -> PlanResult:
    """Choose which convolutions become pairs, by measured time, and how many pairs each becomes.

    Each convolution and what may replace it are timed on the target, and tried out on the
    calibration images; the least output error within the goals is chosen. What does not get faster
    stays. Without goals: what is really faster, at the knee of the curve. The whole network is then
    measured; where it misses the latency asked for, the result's ``passed`` is False. Goals for the
    arena and the flash are about the network's .tflite file, in the target's precision; that of the
    plan is written and looked at.

    Args:
        model: A path, a `keras.Model`, an `onnx.ModelProto`, or what `load` returns.
        calibration: Unlabelled images: a file, a folder, arrays (n, ...) or `Data`.
        goals: What the plan must keep, e.g. ``Goals(latency="0.5x")``.
        target: Where the network shall run. By default this machine's CPU; if the goals are
            about MACs, parameters, size or output error alone, nothing is timed.
        accuracy: Search the cheapest plan that loses at most so much top-1, or ``options.metric``.
        preprocessing: What is done to images that are loaded from a file.
        options: How many images and pairs are tried, and of which layers.
        output: The .json file to write the plan to.
        overwrite: Whether it may exist.
        progress: True for a bar on stderr.

    Returns:
        The plan, for `rewrite`, with what the networks were measured to cost.

    Raises:
        InputError: If an argument cannot be used, or no plan keeps the goals.
        GateFailed: If no plan keeps the accuracy; the best one is in ``output``. Or if none keeps
            goals for the arena or the flash.

    Example:
        >>> import dsconvert as ds
        >>> planned = ds.plan("model.keras", calibration="digits.npz", goals=ds.Goals(macs="0.5x"))
        >>> planned.plan.after.macs <= planned.plan.before.macs / 2
        True
        >>> small = ds.rewrite("model.keras", plan=planned, calibration="digits.npz", refine=0)
    """
    from dsconvert.base.errors import GateFailed
    from dsconvert.converter.core.planning.goals import Goals
    from dsconvert.models.evaluation.metrics import find_metric

    from .accuracy_goal import allowed_drop

    options = of_kind(options, PlanOptions, "options") or PlanOptions()
    goals = of_kind(goals, Goals, "goals") or Goals()
    if output is not None:
        output = place(model, output, overwrite=overwrite, allowed=(".json",))
    if accuracy is not None:  # refused before anything is measured
        allowed_drop(accuracy.max_drop, find_metric(options.metric))
        check_refinement(accuracy.refine, kind_of_source(model), calibration is not None)
    check_sources(calibration, accuracy.data if accuracy is not None else None)
    preprocessing = settled(preprocessing, [model], calibration)
    with plan_session(
        model,
        goals,
        calibration=calibration,
        target=target,
        preprocessing=preprocessing,
        options=options,
        progress=as_progress(progress),
    ) as session:
        dropped, memory = None, None
        if accuracy is None:
            chosen = session.search_space.plan(goals)
            if session.memory is not None:
                chosen, memory = within_memory(
                    session.memory,
                    session.search_space,
                    goals,
                    chosen,
                    lambda plan: _unfitted(session, plan),
                )
        else:
            judging = judge_of(session, options.metric, accuracy.data, preprocessing)
            chosen, dropped = _search(session, goals, judging, accuracy)
        planned = chosen.chosen
        timed = _time(session, chosen)
        if accuracy is None:
            chosen, timed = _tightened(session, goals, chosen, timed)
        if session.memory is not None and (memory is None or chosen.chosen != planned):
            memory = session.memory.use(_unfitted(session, chosen))
        if output is not None:
            write_json(chosen, output, overwrite=overwrite)
        result = PlanResult(
            model=session.opened.told,
            calibration=session.data.source,
            output=str(output or ""),
            plan=chosen,
            timed=timed,
            memory=memory,
            missed="; ".join(filter(None, (_missed(goals, timed), *_over(goals, memory)))),
            dropped=dropped,
            preprocessing=session.data.preprocessing,
        )
    if dropped is not None and dropped.lost > dropped.allowed:
        raise GateFailed(
            "the goal was not reached: the best plan tried loses "
            f"{formatting.loss(dropped.lost, dropped.unit)} of {dropped.title}, "
            f"{formatting.loss(dropped.allowed, dropped.unit)} allowed."
            + (f" It is in {output}." if output else ""),
            "Allow more, ask for less, or fine-tune the rewritten model.",
            code="accuracy-lost",
        )
    return result


def _unfitted(session: PlanSession, plan: Plan) -> Model:
    """Rewrite the network by a plan, with any weights: memory and time do not depend on them."""
    return session.rewrite(plan, fitted=False).model if plan.chosen else session.opened.model


def _over(goals: Goals, memory: MemoryUse | None) -> list[str]:
    return [] if memory is None else exceeded(goals, memory)


def _tightened(
    session: PlanSession, goals: Goals, chosen: Plan, timed: NetworkTimes | None
) -> tuple[Plan, NetworkTimes | None]:
    """Choose again, for less time than was asked for, while the whole network takes longer.

    The sum of the layers' times is not the network's; the error of that prediction is made up for.
    The plan keeps the goals that were asked for; the fastest one that was tried is handed back.
    """
    import msgspec

    from dsconvert.base.errors import InputError

    wanted, share = goals.limit("latency"), 1.0
    for _ in range(_AGAIN):
        if timed is None or wanted is None or not _missed(goals, timed):
            break
        share *= timed.predicted / timed.after
        limit = msgspec.structs.replace(wanted, value=wanted.value * share)
        try:
            plan = session.search_space.plan(msgspec.structs.replace(goals, latency=limit))
        except InputError:  # less is not to be had
            break
        if plan.chosen == chosen.chosen:
            break
        note("the network takes longer than its layers together: planned again, for less")
        again = _time(session, plan)
        if again is None or again.after / again.before >= timed.after / timed.before:
            break
        chosen, timed = msgspec.structs.replace(plan, goal=goals.words()), again
    return chosen, timed


def _missed(goals: Goals, timed: NetworkTimes | None) -> str:
    """Tell by how much a measured network misses the latency asked for; empty if it does not."""
    limit = goals.limit("latency")
    if limit is None or timed is None:
        return ""
    share = limit.of(timed.before) / timed.before
    if timed.ratio_low <= share:
        return ""
    return (
        f"the target of {limit.text} is missed: the rewritten network was measured at "
        f"{timed.after / timed.before:.2f}x ({timed.ratio_low:.2f} to {timed.ratio_high:.2f})"
    )


def _search(
    session: PlanSession, goals: Goals, judging: GoalJudge, accuracy: AccuracyGoal
) -> tuple[Plan, AccuracySearch]:
    """Find the cheapest plan that keeps the goals and loses no more than is allowed."""
    from dsconvert.converter.core.planning.accuracy_search import cheapest_within

    from .accuracy_goal import allowed_drop

    plans: Sequence[Plan] = session.search_space.sweep(_STEPS, goals)
    metric = judging.metric
    allowed = allowed_drop(accuracy.max_drop, metric).of(judging.original)
    refinements: list[tuple[Plan, Refinement | None]] = []

    def drop(plan: Plan) -> float:
        value, refinement = judged_refined(session, judging, plan, accuracy.refine)
        refinements.append((plan, refinement))
        lost = judging.lost(value)
        note(f"{', '.join(plan.goal)}: lost {formatting.loss(lost, metric.unit)}")
        return lost

    found = cheapest_within(plans, drop, allowed)
    return found.plan, AccuracySearch(
        allowed=allowed,
        lost=found.drop,
        original=judging.original,
        metric=metric.told,
        title=metric.title,
        unit=metric.unit,
        tried=tuple((", ".join(plan.goal), lost) for plan, lost in found.tried),
        refined=next(done for plan, done in refinements if plan is found.plan),
    )


def _time(session: PlanSession, plan: Plan) -> NetworkTimes | None:
    """Build both networks for the target and let them take turns; weights do not matter."""
    target_files, original = session.target_files, session.original
    if target_files is None or original is None or plan.after is None or not plan.chosen:
        return None
    rewritten = target_files.build(_unfitted(session, plan), "rewritten")
    low = high = None
    if not target_files.target.estimated:
        first, second = target_files.profile(original, rewritten)
        before, after = first.latency.p50_ms, second.latency.p50_ms
        low, high = second.comparison.low, second.comparison.high
    else:
        before, after = target_files.cost(original, rewritten)
    # The original was timed again just now: where the machine is slower by now, all of it is.
    assert plan.before is not None, "what was measured has both totals"
    predicted = before * (plan.after.cost or 0.0) / (plan.before.cost or before)
    return NetworkTimes(
        unit=plan.unit,
        before=before,
        after=after,
        predicted=predicted,
        error=(after - predicted) / after,
        ratio_low=after / before if low is None else low,
        ratio_high=after / before if high is None else high,
    )
