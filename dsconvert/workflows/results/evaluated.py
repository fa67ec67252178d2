"""How good models are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from dsconvert.base.tables import Block, Shown, Table
from dsconvert.models.evaluation.evaluate import Evaluation

from .. import formatting

if TYPE_CHECKING:
    from dsconvert.base.fidelity import Accuracy


class EvaluatedModel(Shown, Evaluation, frozen=True, kw_only=True):
    """What a model does with some data."""

    def blocks(self) -> Iterator[Block]:
        """Yield one line per output."""
        return evaluation_blocks([self])


def evaluation_blocks(found: Sequence[Evaluation]) -> Iterator[Block]:
    """Yield one line per model and output."""
    compared = any(one.fidelity for one in found)
    figures = ("samples", "top-1", "top-5", "MSE")
    fidelity = ("agreement", "KL, nats", "SQNR") if compared else ()
    table = Table(
        ("file", "output") if compared else ("file",),
        (*figures, *fidelity),
        least=("samples", "top-5"),
    )
    for one in found:
        cells = [f"{one.samples:,}", _accuracy(one.top1), _accuracy(one.top5)]
        cells.append(formatting.short(one.mse))
        if not one.fidelity:
            table.add(one.name, *([""] if compared else []), *cells)
        for number, output in enumerate(one.fidelity):
            table.add(
                one.name if number == 0 else "",
                output.name,
                *(cells if number == 0 else [""] * len(cells)),
                formatting.percent(output.top1_agreement),
                formatting.kl(output),
                formatting.sqnr(output),
            )
    if compared or not any(one.metrics for one in found):
        yield table.without_empty()
    if any(one.metrics for one in found):
        yield _metrics(found)
        yield "in brackets: 95 % interval, by resampled samples or, of right answers, Wilson's"
    if any(one.top1 for one in found):
        yield "± is the half width of the 95 % Wilson interval"
    for one in found:
        yield from (f"{one.name}: {line}" for line in formatting.groups(one.fidelity))
        yield from (f"{one.name}: {warning}" for warning in one.warnings)
        yield from (
            f"{one.name}: {metric.title} unavailable: {metric.reason}"
            for metric in one.metrics
            if metric.value is None
        )


def _metrics(found: Sequence[Evaluation]) -> Table:
    """One line per model, one column per metric."""
    titles = [
        f"{metric.title}{'' if metric.larger_is_better else ' (less is better)'}"
        for metric in found[0].metrics
    ]
    table = Table(("file",), ("samples", *titles))
    for one in found:
        values = (formatting.metric(metric) for metric in one.metrics)
        table.add(one.name, f"{one.samples:,}", *values)
    return table


def _accuracy(value: Accuracy | None) -> str:
    if value is None:
        return "–"
    return f"{100 * value.value:.2f} ± {50 * (value.high - value.low):.2f} %"
