"""The best of several static int8 files of one model: each trick is kept only where it helps.

Scales inside pairs (`converter.balancing`), ranges of least squared error (`clipped_ranges`),
weights that are not rounded to the nearest (`rounding`), biases that make up for what rounding
shifts, and layers left in float are tried one after the other. The SQNR of the outputs, of a
classifier that of its logits, on images that no range came from decides whether one helps.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple

from dsconvert.base.errors import InputError
from dsconvert.base.predictor import Array, Predictor
from dsconvert.formats.quantization import CalibrationMethod

from ..runtimes.registry import open_runtime
from .candidate_builder import CandidateBuilder, Rounding
from .held_out import HeldOut
from .layer_report import layer_report
from .layer_types import QuantizationReport
from .output_tail import is_mixed

_LOOKED_AT = 32
"""Samples that layers are compared on."""
_TRIED = 24
"""Layers that are tried in float."""
GOOD_DB = 20.0
"""SQNR of every group of channels from which outputs that mix scales stay as they are."""
_GAIN_DB = 0.05
"""Less than that is no difference."""

Outputs = Literal["keep", "split", "float-tail", "auto"]
Equalize = Literal["auto", "on", "off"]


@dataclass(frozen=True)
class Improvement:
    """What to try.

    Attributes:
        equalize: Equal ranges inside pairs: where that helps, always, or never.
        correct_biases: Whether to try corrected biases.
        keep_float: How many of the layers that lose most stay in float; "auto": as many as
            ``enough`` needs.
        enough: For "auto": whether a file is good enough, and what to call that.
        min_sqnr_db: For "auto" without ``enough``: the least SQNR of the outputs.
        report: Whether to report on every layer.
        rounding: Chooses how the weights of a Keras model are rounded, and tells what it did; None
            rounds them to the nearest. For .tflite files.
        outputs: What becomes of outputs that mix scales, such as boxes and scores: kept as they
            are, split into those that the last operators read, or kept with these operators in
            float; "auto": what costs least and is good enough.
    """

    equalize: Equalize = "auto"
    correct_biases: bool = True
    keep_float: int | Literal["auto"] = 0
    enough: Callable[[Predictor], bool] | None = field(default=None, compare=False)
    min_sqnr_db: float | None = None
    report: bool = False
    rounding: Rounding | None = None
    outputs: Outputs = "auto"


OFF = Improvement(equalize="off", correct_biases=False, outputs="keep")
"""Nothing but the int8 file as it comes."""


@dataclass(frozen=True)
class Improved:
    """What came of it.

    Attributes:
        notes: What was tried, with its figures, and what was kept.
        layers: The report, if one was asked for.
        method: How activations got their ranges.
        worst_db: SQNR of the worst group of channels on the held-out samples, where outputs mix
            scales.
    """

    notes: tuple[str, ...]
    layers: QuantizationReport | None = None
    method: CalibrationMethod = "minmax"
    worst_db: float | None = None


def improve(
    builder: CandidateBuilder, path: Path, held_out: HeldOut, wish: Improvement
) -> Improved:
    """Write the best int8 file that was found.

    Args:
        builder: Of the model.
        path: Where to write.
        held_out: What decides.
        wish: What to try.

    Raises:
        InputError: If the model cannot be quantized, or layers cannot be left in float.
    """
    with tempfile.TemporaryDirectory(dir=path.parent) as name:
        return _Search(builder, Path(name), held_out, wish).run(path)


class _Made(NamedTuple):
    """A file, who made it, what it is worth, and what its user should know."""

    builder: CandidateBuilder
    path: Path
    sqnr: float
    notes: tuple[str, ...] = ()


@dataclass
class _Search:
    builder: CandidateBuilder
    folder: Path
    held_out: HeldOut
    wish: Improvement
    notes: list[str] = field(default_factory=list)
    made: int = 0

    def run(self, path: Path) -> Improved:
        self._choose_outputs()
        self._look_at_logits()
        best, sqnr = self._started()
        if sqnr == -math.inf:
            best, sqnr = self._divided(best)
        full = self._new()
        wanted = self.wish.keep_float
        if self.wish.correct_biases or wanted or self.wish.report:
            self.builder.write_float(full)
        if self.wish.rounding is not None:
            best, sqnr = self._rounded(best, sqnr, self.wish.rounding)
        if self.wish.correct_biases and not wanted:
            best, sqnr = self._corrected(best, sqnr, full)
        runs = sqnr > -math.inf  # if not, the gate says why
        if wanted and runs:
            best = self._in_float(best, sqnr, full, wanted)
        shutil.copyfile(best, path)
        looks = self.wish.report and runs
        layers = layer_report(full, path, self._looked_at()) if looks else None
        worst = self._worst_of(path) if self._mixed() else None
        return Improved(tuple(self.notes), layers, self.builder.method, worst)

    def _look_at_logits(self) -> None:
        """Compare the logits of a classifier, which tell more than its probabilities do."""
        if not self.held_out.classifies:
            return
        path = self._new()
        with suppress(InputError):  # its outputs are compared
            self.builder.write_float(path)
            self.held_out = self.held_out.with_logits(path)

    def _mixed(self) -> bool:
        """Tell whether an output mixes scales."""
        return any(map(is_mixed, self.held_out.references))

    def _choose_outputs(self) -> None:
        """Leave the end of the network in float where its outputs mix scales and need it.

        Raises:
            InputError: If that was asked for and cannot be done.
        """
        wish = self.wish.outputs
        if wish in ("keep", "split") or (wish == "auto" and not self._mixed()):
            return
        found = self.builder.with_float_tail(self._looked_at())
        if found is None:
            if wish == "auto":
                return
            raise InputError(
                "no operators at the end can be left in float: no output mixes scales on these "
                "images, or the format has no such files.",
                "Leave --outputs at auto.",
                code="no-mixed-scales",
            )
        tailed, told = found
        if wish == "auto":
            worst = [self._worst_group(one) for one in (self.builder, tailed)]
            if worst[1] == -math.inf:
                return
            text = f"{told}: SQNR of the worst group of channels {worst[1]:.1f} dB"
            if worst[0] >= GOOD_DB or worst[1] <= worst[0] + _GAIN_DB:
                return
            told = f"{text}, {worst[0]:.1f} dB with one scale for all of an output"
        self.builder = tailed
        self.notes.append(f"outputs: {told}")

    def _worst_group(self, builder: CandidateBuilder) -> float:
        path = self._new()
        try:
            builder.write(path)
        except InputError as error:
            self._refused(error, path)
            return -math.inf
        return self._worst_of(path)

    def _worst_of(self, path: Path) -> float:
        try:
            return self.held_out.worst(path)
        except InputError as error:
            self._refused(error, path)
            return -math.inf

    def _looked_at(self) -> list[Array]:
        return [array[:_LOOKED_AT] for array in self.held_out.inputs]

    def _new(self) -> Path:
        self.made += 1
        return self.folder / f"file{self.made}{self.builder.suffix}"

    def _write(self, builder: CandidateBuilder, in_float: Sequence[str] = ()) -> tuple[Path, float]:
        """Write a file that must be; its SQNR, −∞ where its runtime refuses it."""
        path = self._new()
        said = builder.write(path, in_float)
        self.notes += [text for text in said if text not in self.notes]
        return path, self._sqnr(path)

    def _try(self, builder: CandidateBuilder, in_float: Sequence[str] = ()) -> tuple[Path, float]:
        """Write a file that may be; the same where it cannot be written."""
        try:
            return self._write(builder, in_float)
        except InputError as error:
            path = self.folder / f"file{self.made}{self.builder.suffix}"
            self._refused(error, path)
            return path, -math.inf

    def _sqnr(self, path: Path) -> float:
        try:
            return self.held_out.score(path)
        except InputError as error:
            self._refused(error, path)
            return -math.inf

    def _refused(self, error: InputError, path: Path) -> None:
        """Tell of a candidate that its runtime, or whoever writes it, refuses."""
        told = f"a candidate was refused: {error.message.replace(str(path), 'it')}"
        if told not in self.notes:
            self.notes.append(told)

    def _started(self) -> tuple[Path, float]:
        """Return the file with the better kind of ranges, with equal ones inside pairs or not."""
        chosen = self._equalized(self.builder)
        other = chosen.builder.otherwise()
        if other is not None:
            path, sqnr = self._try(other)
            if sqnr > -math.inf:
                kept = sqnr > chosen.sqnr + _GAIN_DB
                told = (
                    f"ranges by {other.method} {_verdict(kept)}: {self.held_out.measure} "
                    f"{sqnr:.1f} dB, {chosen.sqnr:.1f} dB by {chosen.builder.method}"
                )
                chosen = chosen._replace(notes=(*chosen.notes, told))
                if kept:
                    chosen = chosen._replace(builder=other, path=path, sqnr=sqnr)
        self.builder = chosen.builder
        self.notes += [note for note in chosen.notes if note not in self.notes]
        return chosen.path, chosen.sqnr

    def _divided(self, best: Path) -> tuple[Path, float]:
        """Return the file whose divisions by what int8 rounds to 0 are in float, if it runs."""
        found = self.builder.with_float_divisions(self._looked_at())
        if found is None:
            return best, -math.inf
        builder, told = found
        path, sqnr = self._try(builder)
        if sqnr == -math.inf:
            return best, sqnr
        self.builder = builder
        self.notes.append(f"{told}; {self.held_out.measure} {sqnr:.1f} dB")
        return path, sqnr

    def _equalized(self, builder: CandidateBuilder) -> _Made:
        """Return the file with or without equal ranges inside the pairs."""
        found = None if self.wish.equalize == "off" else builder.equalized()
        if found is None:
            return _Made(builder, *self._write(builder))
        equalized, said = found
        if self.wish.equalize == "on":
            return _Made(equalized, *self._write(equalized), said)
        after = _Made(equalized, *self._try(equalized), said)
        before = _Made(builder, *self._write(builder))
        kept = after.sqnr > before.sqnr + _GAIN_DB
        told = self._compared("cross-layer equalization", before.sqnr, after.sqnr, kept)
        return (after if kept else before)._replace(notes=(*said, told))

    def _rounded(self, best: Path, sqnr: float, choose: Rounding) -> tuple[Path, float]:
        """Return the file whose weights are rounded as chosen, if that helps."""
        builder, told = self.builder.rounded(choose)
        if builder is None:
            self.notes.append(told)
            return best, sqnr
        path, after = self._try(builder)
        kept = after > sqnr + _GAIN_DB
        self.notes.append(self._compared(told, sqnr, after, kept))
        if not kept:
            return best, sqnr
        self.builder = builder
        return path, after

    def _corrected(self, best: Path, sqnr: float, full: Path) -> tuple[Path, float]:
        """Return the file with the biases that make up for shifted means, if that helps."""
        path = self._new()
        try:
            count = self.builder.corrected(full, best, path)
        except InputError as error:
            self._refused(error, best)
            count = 0
        if count == 0:
            return best, sqnr
        after = self._sqnr(path)
        kept = after > sqnr + _GAIN_DB
        self.notes.append(self._compared(f"bias correction of {count} layers", sqnr, after, kept))
        return (path, after) if kept else (best, sqnr)

    def _in_float(self, best: Path, sqnr: float, full: Path, wanted: int | Literal["auto"]) -> Path:
        """Return the file whose worst layers are in float: so many, or as few as are enough."""
        report = layer_report(full, best, self._looked_at())
        if wanted != "auto" and wanted >= len(report.layers):
            raise InputError(
                f"{wanted} layers cannot be left in float: the model has {len(report.layers)}.",
                "Export without --quantize for a file in float.",
                code="too-many-layers",
            )
        if wanted == "auto" and self._enough(best, sqnr):
            self._told([], sqnr, sqnr)
            return best
        worst = self._worst(report, sqnr)
        if wanted != "auto":
            made, after = self._write(self.builder, worst[:wanted])
            self._told(worst[:wanted], sqnr, after)
            return made
        tried = {0: (best, sqnr)}
        count = 0
        while count < len(worst) - 1:
            count = min(len(worst) - 1, count + 1 if count < 4 else count + count // 2)
            tried[count] = self._try(self.builder, worst[:count])
            if self._enough(*tried[count]):
                break
        else:
            count = max(tried, key=lambda n: tried[n][1])
            self.notes.append("no choice of layers in float is enough; the best is kept")
        self._told(worst[:count], sqnr, tried[count][1])
        return tried[count][0]

    def _worst(self, report: QuantizationReport, sqnr: float) -> list[str]:
        """Names of layers, first those that do the outputs most good when in float.

        A layer of low SQNR may only hand on what it was given: leaving that one in float does
        nothing. And what lies between two layers is real only if both are in float, so each is
        tried alone and with the next one. Of many layers those of lowest SQNR are tried.
        """
        names = [layer.name for layer in report.layers]
        tried = {layer.name for layer in report.worst(_TRIED)}
        units = [(name,) for name in names] + list(pairwise(names))
        gains = dict.fromkeys(names, -math.inf)
        for unit in units:
            if tried.issuperset(unit):
                gain = (self._try(self.builder, unit)[1] - sqnr) / len(unit)
                gains |= {name: max(gains[name], gain) for name in unit}
        return sorted(names, key=lambda name: -gains[name])

    def _enough(self, path: Path, sqnr: float) -> bool:
        if self.wish.enough is not None:
            return self.wish.enough(open_runtime(path))
        least = self.wish.min_sqnr_db
        if least is None or sqnr == -math.inf or self.held_out.sqnr(path) < least:
            return False
        return self.held_out.worst(path) >= least  # of many, each

    def _told(self, names: Sequence[str], before: float, after: float) -> None:
        named = f"{len(names)} layers in float{': ' if names else ''}{', '.join(names)}"
        self.notes.append(
            f"{named}; {self.held_out.measure} {before:.1f} dB without, {after:.1f} dB with them"
        )

    def _compared(self, what: str, before: float, after: float, kept: bool) -> str:
        """Say what was tried, and what it does."""
        return (
            f"{what} {_verdict(kept)}: {self.held_out.measure} {before:.1f} dB without, "
            f"{after:.1f} dB with it"
        )


def _verdict(kept: bool) -> str:
    return "kept" if kept else "not kept"
