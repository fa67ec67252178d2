"""What a whole run came to: the content of report.json."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

import msgspec

from dsconvert.base.fidelity import OutputFidelity
from dsconvert.base.tables import Block, Shown, Table
from dsconvert.converter.core.types import Figure
from dsconvert.converter.potential import Potential
from dsconvert.deploy.devices.records import OperatorTime
from dsconvert.models.data.preprocess import Preprocessing
from dsconvert.models.evaluation.metrics import MetricValue
from dsconvert.models.training.settings import Epoch

from .. import formatting

_Ratio = Annotated[float, msgspec.Meta(gt=0)]


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """The time of one file, measured in turns with all others.

    Attributes:
        unit: "ms" of the median, or "cycles" by estimate.
        value: The time.
        p90: The ninth decile; None for an estimate.
        ratio: The time over the first file's; below 1 is faster.
        low: Lower end of its 95 % interval.
        high: Upper end.
        verdict: What can be said of the difference.
    """

    unit: str
    value: float
    p90: float | None = None
    ratio: _Ratio = 1.0
    low: _Ratio = 1.0
    high: _Ratio = 1.0
    verdict: str = ""


class FileFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a run, with all that was found out about it.

    Attributes:
        name: The file, below files/.
        model: "original" or "rewritten".
        form: As "tflite-int8".
        command: The command that makes it.
        failure: Why there is no such file; the figures are empty then.
        sha256: Its hash.
        size_bytes: Its size.
        macs: Multiply-accumulates counted in it; a text says why they are not known.
        timing: Its time; None where it was not measured.
        timing_failure: Why it was not.
        score: Its accuracy, or the metric asked for; None where there is none.
        fidelity: How close its outputs are to the original model's.
        loss: What it loses of the metric or of top-1, else the share of changed classes, else
            that of noise in the worst output; None where it was not measured.
        verified: Whether it passed its comparison with the model that it was made from.
        failures: What that comparison found.
        operators: The time of each operator; a text says why there are none.
        notes: What its user should know.
    """

    name: str
    model: Literal["original", "rewritten"]
    form: str
    command: str = ""
    failure: str = ""
    sha256: str = ""
    size_bytes: int = 0
    macs: int | str = "unavailable: not counted"
    timing: Timing | None = None
    timing_failure: str = ""
    score: MetricValue | None = None
    fidelity: tuple[OutputFidelity, ...] = ()
    loss: float | None = None
    verified: bool = False
    failures: tuple[str, ...] = ()
    operators: tuple[OperatorTime, ...] | str = ()
    notes: tuple[str, ...] = ()


class LayerFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One convolution of a run.

    Attributes:
        name: Its name in the model.
        becomes: What it was replaced by; empty if it stays.
        reason: Why it stays.
        before: Its cost on the target; None where it was not measured.
        after: The cost of what replaced it.
        output_error: The change of the network's outputs if it alone is replaced.
        data_error: The error of its own output.
    """

    name: str
    becomes: str = ""
    reason: str = ""
    before: Figure | None = None
    after: Figure | None = None
    output_error: float | None = None
    data_error: float | None = None


class StageTime(msgspec.Struct, frozen=True, kw_only=True):
    """How long a stage took.

    Attributes:
        stage: Its name.
        title: What it does.
        seconds: The time; None if it was not run.
        about: What it is estimated to take, in seconds; None if it was run, or is not known.
        state: "done", "failed" or "planned".
        failure: Why it failed.
    """

    stage: str
    title: str
    seconds: float | None = None
    about: float | None = None
    state: Literal["done", "failed", "planned"] = "done"
    failure: str = ""


class OptimizeResult(Shown, msgspec.Struct, frozen=True, kw_only=True):
    """A whole run.

    Attributes:
        model: The model's file.
        sha256: Its hash.
        data: Where the data are.
        folder: Of the run.
        dry: Whether nothing was done but to say what would be.
        target_latency: What was asked for; empty if nothing was.
        max_drop: What the file to use may lose.
        missed: By how much the target is missed, and what to try; empty if it is not.
        potential: What a rewrite can save at most.
        rewritten: Whether the model was rewritten.
        not_rewritten: Why not.
        loss_of: What losses are of: a metric, "changed classes" or "noise".
        loss_unit: Their unit, "share" of 1, "dB" or that of the labels.
        original: The original model's metric; None where there is none.
        baseline: The file that the others are compared with.
        recommended: The file to use; empty if none is fit.
        why: Why it is that one.
        files: All files, the baseline first.
        layers: All convolutions.
        unit: Of the layers' costs.
        target: What those were measured on.
        training: Epoch 0, the rewritten model as it was fitted, and those after it.
        best_epoch: The epoch that was kept.
        preprocessing: What is done to stored images.
        environment: The machine and the versions of all that took part.
        warnings: What a reader of the figures should know.
        stages: How long each stage took.
        dsconvert: The version that made this.
    """

    schema: Literal["dsconvert.optimized/1"] = "dsconvert.optimized/1"
    model: str
    sha256: str
    data: str
    folder: str
    dry: bool = False
    target_latency: str = ""
    max_drop: str = ""
    missed: str = ""
    potential: Potential
    rewritten: bool = False
    not_rewritten: str = ""
    loss_of: str = ""
    loss_unit: str = "share"
    original: MetricValue | None = None
    baseline: str = ""
    recommended: str = ""
    why: str = ""
    files: tuple[FileFigures, ...] = ()
    layers: tuple[LayerFigures, ...] = ()
    unit: str = ""
    target: str = ""
    training: tuple[Epoch, ...] = ()
    best_epoch: int = 0
    preprocessing: Preprocessing
    environment: dict[str, str] = {}
    warnings: tuple[str, ...] = ()
    stages: tuple[StageTime, ...] = ()
    dsconvert: str = ""

    @property
    def passed(self) -> bool:
        """Tell whether the target was reached, and a file can be recommended."""
        return self.dry or (not self.missed and bool(self.recommended))

    def blocks(self) -> Iterator[Block]:
        """Yield what was gained, the file to use, then one line per file."""
        if self.missed:
            yield f"NOT reached: {self.missed}"
        yield self.potential.text
        if self.not_rewritten:
            yield f"Not rewritten: {self.not_rewritten}"
        if self.dry:
            yield from self._planned()
            return
        yield (
            f"Use {self.folder}/files/{self.recommended}: {self.why}"
            if self.recommended
            else (f"No file can be recommended: {self.why}")
        )
        yield _files(self)
        yield f"faster: than {self.baseline}; lost: of {self.loss_of}, against the original model"
        yield from _plot(self)
        yield from _failed(self)
        yield f"Everything is in {self.folder}: report.html, run.py, recipe.toml, manifest.json"

    def _planned(self) -> Iterator[Block]:
        table = Table(("what", "stage"), ("takes",), ("state",), least=("stage",))
        for stage in self.stages:
            took = "–" if stage.seconds is None else f"{stage.seconds:.1f} s"
            if stage.about is not None:
                took = f"about {_rough(stage.about)}"
            state = "is done" if stage.state == "done" else "would be run"
            table.add(stage.title, stage.stage, took, state)
        yield table
        about = [stage.about for stage in self.stages if stage.about is not None]
        if about:
            yield (
                f"about {_rough(sum(about))} in all if the machine has nothing else to do; an "
                "estimate is right to a factor of two or three"
            )


def _rough(seconds: float) -> str:
    """Write an estimated time with one digit that counts."""
    if seconds < 60:
        return f"{max(round(seconds, -1), 5):.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.0f} h"


def _files(run: OptimizeResult) -> Table:
    table = Table(
        ("file",),
        ("size", "time", "faster", "lost", run.loss_of),
        ("verified",),
        least=(run.loss_of, "size"),
    )
    for file in run.files:
        if file.failure:
            continue
        mark = "▸ " if file.name == run.recommended else "  "
        timing = file.timing
        time = versus = "–"
        if timing is not None:
            amount = formatting.short(timing.value)
            time = formatting.ms(timing.value) if timing.unit == "ms" else f"{amount} cycles"
            versus = f"{1 / timing.ratio:.2f}×"
        table.add(
            f"{mark}{file.name}",
            formatting.kib(file.size_bytes),
            time,
            "" if file.name == run.baseline else versus,
            formatting.amount(file.loss, run.loss_unit),
            formatting.metric(file.score) if file.score else "–",
            "yes" if file.verified else "NO",
        )
    return table


def _plot(run: OptimizeResult) -> Iterator[str]:
    from ..reporting.terminal_plot import pareto

    yield from pareto(run.to_dict()).splitlines()


def _failed(run: OptimizeResult) -> Iterator[str]:
    for file in run.files:
        if file.failure:
            yield f"no {file.name}: {file.failure}"
        elif file.timing_failure:
            yield f"{file.name} was not timed: {file.timing_failure}"
