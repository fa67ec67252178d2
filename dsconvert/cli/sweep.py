from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dsconvert.workflows.results import SweepPoint, SweepResult

from . import formatting, options, plan_options, terminal

if TYPE_CHECKING:
    from rich.console import Console

    from dsconvert.converter.core.types import Plan
    from dsconvert.models.data.datasets import Data


def show(console: Console, result: SweepResult) -> None:
    """One line per plan."""
    from rich.table import Table

    table = Table("MACs", "parameters", box=None, pad_edge=False)
    for title in (result.unit or "cost", "output error", "top-1", "rewritten", "pairs"):
        table.add_column(title, justify="right")
    for point in result.points:
        totals = point.totals
        table.add_row(
            formatting.short(totals.macs),
            f"{totals.params:,}",
            "–" if totals.cost is None else f"{totals.cost:.4g}",
            f"{totals.output_error:.3g}",
            formatting.percent(point.top1, 2),
            str(len(point.pairs)),
            " ".join(map(str, point.pairs.values())),
        )
    console.print(table)
    if result.target:
        console.print(f"target: {result.target}")
    if result.output:
        console.print(result.output)


@click.command()
@click.argument("model", type=options.MODEL)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Also write it to a .json file."
)
@click.option("--points", type=click.IntRange(2), default=8, show_default=True)
@plan_options.target
@click.option("--data", metavar="DATA", help="Labelled images: rewrite and evaluate every point.")
@plan_options.search
@options.overwrite
@options.preprocessing
@options.loading
@options.common
@terminal.speaks(show)
def sweep(
    model: Path,
    output: Path | None,
    points: int,
    data: str | None,
    overwrite: bool,
    seed: int,
    scale: str | None,
    mean: str | None,
    std: str | None,
    channels_first: bool,
    **rest: Any,
) -> SweepResult:
    """Show the output error of each budget: plans for MODEL from the untouched network on."""
    if output is not None:
        output = options.place(model, output, ".json", overwrite, allowed=(".json",))
    prepare: dict[str, Any] = {
        "scale": scale,
        "mean": mean,
        "std": std,
        "channels_first": channels_first,
    }
    with plan_options.plan_session(model, None, seed=seed, prepare=prepare, **rest) as session:
        images = None if data is None else plan_options.labelled(session, data, seed, prepare)
        plans = session.search_space.sweep(points)
        with terminal.progress("Evaluating plans", len(plans) if images else 0) as advance:
            found = []
            for plan in plans:
                found.append(_point(session, plan, images))
                advance()
        result = SweepResult(
            model=str(model),
            output=str(output or ""),
            target=session.search_space.target,
            unit=session.search_space.unit,
            points=tuple(found),
        )
    if output is not None:
        plan_options.write_json(result, output, overwrite)
    return result


def _point(session: plan_options.PlanSession, plan: Plan, images: Data | None) -> SweepPoint:
    top1 = None
    if images is not None:
        model = session.rewrite(plan).model if plan.chosen else session.opened.model
        top1 = plan_options.top1(model, session.opened, images)
    assert plan.after is not None, "a prospect's plans have totals"
    pairs = {name: choice.pairs for name, choice in plan.chosen.items()}
    return SweepPoint(totals=plan.after, pairs=pairs, top1=top1)
