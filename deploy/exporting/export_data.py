"""The samples of an export: those for ranges, those to choose by, and those to compare on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dsconvert.base.predictor import Array
from dsconvert.formats.quantization import CalibrationMethod, VerifiedOn

from ..runtimes.samples import check_inputs, count_samples, random_samples, samples_of
from ..schemes import SCHEMES
from ..verification.telling_inputs import telling_inputs
from .export_options import Options
from .held_out import HeldOut, split
from .improve import OFF, Improvement
from .output_tail import SAMPLES, is_mixed
from .records import CalibrationRecord
from .source import Source

Samples = Sequence[Array] | Array
"""One array per input, (n, ...), or the array itself if there is one input; preprocessed."""

_COMPARED = 32
"""Samples of the calibration that are compared on where there is no verification data."""


@dataclass(frozen=True)
class ExportData:
    """What a file is calibrated, chosen and compared on: one array per input, (n, ...), each.

    Attributes:
        compared: What its outputs are compared on.
        verified_on: What these are.
        ranges: What gives the ranges of its activations; None where they have none.
        random: Whether these are random numbers, for want of data.
        held_out: Further ones that choose between several files; None for one file.
        notes: What the user of the file should know.
    """

    compared: tuple[Array, ...]
    verified_on: VerifiedOn
    ranges: tuple[Array, ...] | None = None
    random: bool = False
    held_out: HeldOut | None = None
    notes: tuple[str, ...] = ()

    def record(self, source: str, method: CalibrationMethod) -> CalibrationRecord | None:
        """Return what the file says of its ranges; None where it has none.

        Args:
            source: What the calibration data are called.
            method: How a range is taken from the values seen.
        """
        if self.ranges is None:
            return None
        return CalibrationRecord(
            source=("random inputs" if self.random else source) or "calibration data",
            samples=samples_of(self.ranges),
            random=self.random,
            method=method,
        )


def export_data(
    source: Source,
    calibration: Samples | None,
    verification: Samples | None,
    options: Options,
    *,
    gate: bool,
    seed: int,
) -> ExportData:
    """Decide what each sample is for.

    Args:
        source: The model.
        calibration: Typical inputs, if there are any; without them int8 gets random ones.
        verification: Inputs to compare outputs on, by default the first of the calibration's, else
            random ones.
        options: How the file is made.
        gate: Whether outputs are compared at all.
        seed: Of random inputs.

    Raises:
        InputError: If the samples do not fit the model.
    """
    static = SCHEMES[options.quantize].static
    given = None if calibration is None else _checked(calibration, source, "calibration data")
    notes: tuple[str, ...] = ()
    verified_on: VerifiedOn
    if verification is not None:
        verified_on = "verification data"
        compared = _checked(verification, source, verified_on)
    elif given is not None:
        verified_on = "calibration data"
        compared = tuple(array[:_COMPARED] for array in given)
    else:
        verified_on = "random inputs"
        compared = random_samples(source.inputs, seed)
        if gate and not static:
            compared, moved = telling_inputs(source.predict, compared)
            notes = (moved,) if moved else ()
    if not static:
        return ExportData(compared, verified_on, notes=notes)
    if given is None:
        ranges = random_samples(source.inputs, seed)
        return ExportData(compared, verified_on, ranges, random=True)
    if not _needs_choice(options.improvement, source, given):
        return ExportData(compared, verified_on, given)
    ranges, apart = split(given)
    held_out = HeldOut(apart, source.predict(apart))
    return ExportData(compared, verified_on, ranges, held_out=held_out)


def as_arrays(data: Samples) -> Sequence[Array]:
    """Return samples as one array per input."""
    return [data] if isinstance(data, np.ndarray) else [np.asarray(array) for array in data]


def _needs_choice(wish: Improvement, source: Source, calibration: Sequence[Array]) -> bool:
    """Tell whether several files are to be compared on samples that give no ranges."""
    if replace(wish, outputs=OFF.outputs) != OFF or wish.outputs != "auto":
        return wish != OFF
    few = [array[:SAMPLES] for array in calibration]
    return any(map(is_mixed, source.predict(few)))


def _checked(data: Samples, source: Source, what: str) -> tuple[Array, ...]:
    arrays = check_inputs(data, source.inputs, what)
    count_samples(arrays, what)
    return arrays
