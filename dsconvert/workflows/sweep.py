"""Show the output error of each budget."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from dsconvert.base.arguments import of_kind
from dsconvert.base.progress import as_progress

from .data_for import check_sources
from .outputs import place, write_json
from .plan_session import PlanOptions, PlanSession, TargetWish, judge_of, judged, plan_session
from .results.planned import SweepPoint, SweepResult
from .stored_preprocessing import settled

if TYPE_CHECKING:
    from dsconvert.base.progress import Progress
    from dsconvert.converter.core.types import Plan
    from dsconvert.deploy.costs import Target
    from dsconvert.models.data.preprocess import Preprocessing

    from .accuracy_goal import GoalJudge
    from .data_for import DataSource
    from .model_files import ModelSource


def sweep(
    model: ModelSource,
    *,
    calibration: DataSource | None,
    points: int = 8,
    data: DataSource | None = None,
    target: Target | TargetWish | None = None,
    preprocessing: Preprocessing | None = None,
    options: PlanOptions | None = None,
    output: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress | bool = False,
) -> SweepResult:
    """Measure a model on a target, and show the least output error at falling budgets.

    Args:
        model: A path, a `keras.Model`, an `onnx.ModelProto`, or what `load` returns.
        calibration: Unlabelled images: a file, a folder, arrays (n, ...) or `Data`.
        points: How many plans, from the untouched network on.
        data: Images, with labels where ``options.metric`` needs them: with them every plan is
            rewritten and evaluated.
        target: Where the network shall run; by default this machine's CPU.
        preprocessing: What is done to images that are loaded from a file.
        options: How many images and pairs are tried, and of which layers.
        output: The .json file to write the curve to.
        overwrite: Whether it may exist.
        progress: True for a bar on stderr.

    Returns:
        One point per plan: its cost, its output error, its pairs.

    Raises:
        InputError: If an argument cannot be used.

    Example:
        >>> import dsconvert as ds
        >>> options = ds.PlanOptions(max_pairs=1, samples=50)
        >>> curve = ds.sweep("model.onnx", calibration="digits.npz", points=2, options=options)
        >>> curve.unit
        'ms'
    """
    options = of_kind(options, PlanOptions, "options") or PlanOptions()
    if output is not None:
        output = place(model, output, overwrite=overwrite, allowed=(".json",))
    told = as_progress(progress)
    check_sources(calibration, data)
    preprocessing = settled(preprocessing, [model], calibration)
    with plan_session(
        model,
        None,
        calibration=calibration,
        target=target,
        preprocessing=preprocessing,
        options=options,
        progress=told,
    ) as session:
        judging = None
        if data is not None:
            judging = judge_of(session, options.metric, data, preprocessing)
        plans = session.search_space.sweep(points)
        with told("Evaluating plans", len(plans) if judging else 0) as advance:
            found = []
            for plan in plans:
                found.append(_point(session, plan, judging))
                advance()
        result = SweepResult(
            model=session.opened.told,
            output=str(output or ""),
            target=session.search_space.target,
            unit=session.search_space.unit,
            points=tuple(found),
        )
    if output is not None:
        write_json(result, output, overwrite=overwrite)
    return result


def _point(session: PlanSession, plan: Plan, judging: GoalJudge | None) -> SweepPoint:
    found = None if judging is None else judged(session, judging, plan, interval=True)
    assert plan.after is not None, "a search space's plans have totals"
    return SweepPoint(
        totals=plan.after,
        pairs={name: choice.pairs for name, choice in plan.chosen.items()},
        channels={
            name: choice.channels
            for name, choice in plan.chosen.items()
            if choice.channels is not msgspec.UNSET
        },
        top1=found.value if found is not None and found.name == "top1" else None,
        metric=found,
    )
