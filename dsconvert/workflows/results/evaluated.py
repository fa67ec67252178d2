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
    titles = ("file", "samples", "top-1", "top-5", "MSE", "output", "agreement", "KL", "SQNR")
    table = Table(titles)
    for one in found:
        cells = [one.name, f"{one.samples:,}", _accuracy(one.top1), _accuracy(one.top5)]
        cells.append(formatting.short(one.mse))
        if not one.fidelity:
            table.add(*cells)
        for output in one.fidelity:
            table.add(
                *cells,
                output.name,
                formatting.percent(output.top1_agreement),
                "–" if output.kl_nats is None else f"{output.kl_nats:.3g} nats",
                formatting.sqnr(output),
            )
            cells = [""] * 5
    yield table
    if any(one.top1 for one in found):
        yield "± is the half width of the 95 % Wilson interval"
    for one in found:
        yield from (f"{one.name}: {line}" for line in formatting.groups(one.fidelity))
        yield from (f"{one.name}: {warning}" for warning in one.warnings)


def _accuracy(value: Accuracy | None) -> str:
    if value is None:
        return "–"
    return f"{100 * value.value:.2f} ± {50 * (value.high - value.low):.2f} %"
