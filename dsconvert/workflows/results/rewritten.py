"""What a rewrite came to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

import msgspec

from dsconvert.base.input_size import UNKNOWN
from dsconvert.base.tables import Block, Shown, Table

from .. import formatting

if TYPE_CHECKING:
    from dsconvert.converter.core.report import RewriteReport
    from dsconvert.converter.core.types import Plan
    from dsconvert.models.data.preprocess import Preprocessing
    from dsconvert.models.training.refine import Refinement

M = TypeVar("M")


class RewriteResult(Shown, msgspec.Struct, frozen=True, kw_only=True):
    """A rewritten model, and its file if one was written.

    Attributes:
        model: What it was made from.
        output: The file that was written; empty if none was.
        sha256: Its hash.
        size_bytes: Its size.
        repairs: What had to be repaired to load the model.
        preprocessing: What was done to the calibration images.
        report: What was done to the layers.
        refined: What training them together came to; None where that was not done.
    """

    schema: Literal["dsconvert.rewritten/1"] = "dsconvert.rewritten/1"
    model: str
    output: str = ""
    sha256: str = ""
    size_bytes: int | None = None
    repairs: tuple[str, ...]
    preprocessing: Preprocessing
    report: RewriteReport
    refined: Refinement | None = None

    def blocks(self) -> Iterator[Block]:
        """Yield one line per convolution, then the totals and the file."""
        return self._blocks(("MACs", "params"), weights=False)

    def details(self) -> Iterator[Block]:
        """Yield the same with the weights' errors."""
        return self._blocks((), weights=True)

    def _blocks(self, least: tuple[str, ...], *, weights: bool) -> Iterator[Block]:
        report = self.report
        error = ("weights' error",) if weights else ()
        table = Table(("layer", "became", "MACs", "params"), error, ("fit",), least=least)
        for row in report.layers:
            if row.pairs is None:
                table.add(row.name, f"left alone: {row.reason.text if row.reason else ''}")
                continue
            notes = f" ({'; '.join(row.notes)})" if row.notes else ""
            table.add(
                row.name,
                f"{row.text}{notes}",
                f"{formatting.short(row.macs_before)} → {formatting.short(row.macs_after)}",
                f"{row.params_before:,} → {row.params_after:,}",
                *([formatting.percent(row.weight_error)] if weights else []),
                formatting.fit(row.data_error),
            )
        yield table
        yield from _fits(report)
        if self.refined is not None:
            yield _refinement(self.refined)
        yield from (f"note: {remark}" for remark in report.notes)
        yield _totals(report)
        if self.output:
            yield formatting.file(self.output, self.size_bytes, self.sha256)


def _fits(report: RewriteReport) -> Iterator[Block]:
    for trial in report.trials:
        chosen = " (taken)" if trial is report.trials[0] else ""
        yield f"fitted with {trial.strategy}: output error {trial.output_error:.4g}{chosen}"
    if report.trials:
        yield (
            "  output error: KL in nats, or squared relative error, on "
            f"{report.held_out_images} of the calibration images that no fit saw; the other "
            f"{report.calibration_images} were used"
        )
    if report.refitted:
        yield f"also refitted: {', '.join(report.refitted)}"


def _refinement(refined: Refinement) -> str:
    """Tell how it went, with both errors, and how to repeat it."""
    if refined.interrupted:
        return "refinement interrupted: the weights are those of the fit"
    after = "not finite" if refined.error_after is None else f"{refined.error_after:.4g}"
    verdict = (
        f"kept{_way(refined)}; the layers' errors above are those of the fit"
        if refined.kept
        else "not kept: the weights are those of the fit"
    )
    return (
        f"refined for {refined.steps} steps in {refined.seconds:.0f} s: output error "
        f"{refined.error_before:.4g} → {after} on {refined.held_out_images} held-out images "
        f"({verdict}); --refine {refined.steps}steps repeats it"
    )


def _way(refined: Refinement) -> str:
    """Tell where between the fit and the end of the training the weights lie."""
    run = " of a second run in smaller steps" if refined.gentler else ""
    return f"{run}, at {refined.way:.0%} of the way" if refined.way < 1 else run


def _totals(report: RewriteReport) -> str:
    macs = f"MACs unavailable ({UNKNOWN})"
    if report.macs_before:
        macs = (
            f"MACs {formatting.short(report.macs_before)} → {formatting.short(report.macs_after)} "
            f"({formatting.change(report.macs_before, report.macs_after)})"
        )
    return (
        f"{len(report.rewritten)} of {len(report.layers)} convolutions rewritten by "
        f"{report.method}: {macs}, parameters "
        f"{report.params_before:,} → {report.params_after:,} "
        f"({formatting.change(report.params_before, report.params_after)})"
    )


@dataclass(frozen=True, repr=False)
class RewrittenModel(Shown, Generic[M]):
    """A rewritten model with the report on it.

    Attributes:
        model: A functional `keras.Model` of stock layers, or an `onnx.ModelProto`.
        plan: What was decided about each convolution.
        record: The report.
    """

    model: M
    plan: Plan
    record: RewriteResult

    @property
    def report(self) -> RewriteReport:
        """Return what was done to the layers."""
        return self.record.report

    def blocks(self) -> Iterator[Block]:
        """Give the report's lines and tables."""
        return self.record.blocks()
