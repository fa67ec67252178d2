"""Samples that choose between the files of one model, and give no ranges."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from dsconvert.base.in_batches import filled
from dsconvert.base.label_agreement import OutputKind, label_agreement
from dsconvert.base.output_fidelity.group_error import group_noise
from dsconvert.base.predictor import Array

from ..runtimes.registry import open_runtime
from .logits import logits_of

HELD_OUT = 0.2
"""The share of the calibration data that choose, and give no ranges."""
_FEWEST = 10


class ExportSource(Protocol):
    """A model that is exported."""

    @property
    def output_names(self) -> tuple[str, ...]:
        """Its outputs' names."""

    def predict(self, inputs: Sequence[Array]) -> tuple[Array, ...]:
        """Run on one array per input, (n, ...)."""


@dataclass(frozen=True)
class HeldOut:
    """Samples that choose between files.

    Attributes:
        inputs: One array per input, (n, ...).
        references: What the model gives for them.
        logits: What each output's softmax is given for them; None where that is not asked for.
    """

    inputs: tuple[Array, ...]
    references: tuple[Array, ...]
    logits: tuple[Array | None, ...] = ()

    def of(self, source: ExportSource) -> HeldOut:
        """Return the same samples for another model."""
        return HeldOut(self.inputs, source.predict(self.inputs))

    @property
    def classifies(self) -> bool:
        """Tell whether an output is a vector of probabilities."""
        return any(
            one.ndim == 2 and one.shape[1] > 1 and np.allclose(one.sum(axis=1), 1, atol=1e-3)
            for one in self.references
        )

    def with_logits(self, full: Path) -> HeldOut:
        """Return the same samples with the logits that a float32 file of the model has."""
        return replace(self, logits=logits_of(full, self.inputs))

    @property
    def measure(self) -> str:
        """Say what `score` is."""
        return "SQNR of the logits" if any(one is not None for one in self.logits) else "SQNR"

    def score(self, path: Path) -> float:
        """SQNR by which files are compared, in dB: of logits where there are some, else outputs."""
        if self.measure == "SQNR":
            return self.sqnr(path)
        pairs = zip(self.logits, logits_of(path, self.inputs), strict=True)
        noise = [_noise_of_logits(reference, logits) for reference, logits in pairs]
        if None in noise:  # an output without logits counts as it is
            outputs = [float(np.mean(groups)) for groups in self._noise(path)]
            noise = [
                other if one is None else one for one, other in zip(noise, outputs, strict=True)
            ]
        total = sum(one for one in noise if one is not None) / len(noise)
        return _decibels(total if np.isfinite(total) else math.inf)

    def sqnr(self, path: Path) -> float:
        """SQNR of all outputs of a file together, in dB; each group at its own scale."""
        noise = [float(np.mean(groups)) for groups in self._noise(path)]
        return _decibels(sum(noise) / len(noise))

    def worst(self, path: Path) -> float:
        """SQNR of the group of an output's channels that has the lowest, in dB."""
        return _decibels(max(noise for groups in self._noise(path) for noise in groups))

    def _noise(self, path: Path) -> list[list[float]]:
        """Of each group of each output ‖y − ŷ‖² / ‖y‖²; infinite where a value is not finite."""
        session = open_runtime(path)
        outputs = session.predict(self.inputs)
        return [
            _noise_of(reference, output, kind)
            for reference, output, kind in zip(
                self.references, outputs, session.output_kinds, strict=True
            )
        ]


def split(calibration: Sequence[Array]) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    """The samples for ranges and those to choose by; the same where there are fewer than ten."""
    count = len(calibration[0])
    if count < _FEWEST:
        return tuple(calibration), tuple(calibration)
    kept = count - max(1, round(HELD_OUT * count))
    return tuple(a[:kept] for a in calibration), tuple(a[kept:] for a in calibration)


def _noise_of_logits(reference: Array | None, logits: Array | None) -> float | None:
    """Return ‖y − ŷ‖² / ‖y‖² of logits; None where there are none, or others."""
    if reference is None or logits is None or reference.shape != logits.shape:
        return None
    return float(np.sum(np.square(logits - reference)) / np.sum(np.square(reference)))


def _noise_of(reference: Array, output: Array, kind: OutputKind) -> list[float]:
    """Return ‖y − ŷ‖² / ‖y‖² of each group of an output; of labels the share of wrong ones.

    That of an output of another number of samples is infinite: the gate says what is wrong.
    """
    if len(reference) != len(output):
        return [math.inf]
    if kind.rows is not None:
        reference, output = filled([reference, output], -1 if kind.labels else 0)
    if kind.labels:
        return [1.0 - label_agreement(reference, output, kind).agreement]
    if reference.shape != output.shape:  # a Resize may round another scale to another size
        return [math.inf]
    if np.any(reference):
        return group_noise(reference, output)
    return [float(np.sum(np.square(output, dtype=np.float64)))]


def _decibels(noise: float) -> float:
    return math.inf if noise == 0 else -10 * math.log10(noise)
