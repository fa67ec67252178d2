"""What `improve` asks of a format: the int8 file of one model, and variants of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from dsconvert.base.predictor import Array
from dsconvert.formats.quantization import CalibrationMethod

from .keras_source import KerasSource

Rounding = Callable[[KerasSource, Sequence[Array]], tuple[KerasSource | None, str]]
"""Takes a model and its calibration data; see `rounding.RoundingSearch`."""


class CandidateBuilder(Protocol):
    """Makes the int8 file of one model, and what is compared with it."""

    @property
    def suffix(self) -> str:
        """Of its files."""

    @property
    def method(self) -> CalibrationMethod:
        """Tell how activations get their ranges."""

    def write(self, path: Path, in_float: Sequence[str] = ()) -> tuple[str, ...]:
        """Write the int8 file; ``in_float`` names layers as a `QuantizationReport` does."""

    def write_float(self, path: Path) -> None:
        """Write the same model in float32."""

    def equalized(self) -> tuple[CandidateBuilder, tuple[str, ...]] | None:
        """Return a builder of the model with equal ranges inside its pairs; None without pairs."""

    def with_float_tail(self, samples: Sequence[Array]) -> tuple[CandidateBuilder, str] | None:
        """A builder whose last operators stay in float, from where their tensors mix scales on.

        With what these operators are, in words; None where no tensor mixes scales, or where the
        format cannot leave them in float.
        """

    def with_float_divisions(self, samples: Sequence[Array]) -> tuple[CandidateBuilder, str] | None:
        """A builder whose divisions by what int8 rounds to 0 stay in float, and which these are.

        None where there are none, or where the format divides by 0 without an end.
        """

    def otherwise(self) -> CandidateBuilder | None:
        """Return a builder whose activations get their ranges in another way; None for no other."""

    def rounded(self, choose: Rounding) -> tuple[CandidateBuilder | None, str]:
        """Return a builder whose weights round as chosen, None for no better, and what was done."""

    def corrected(self, full: Path, quantized: Path, path: Path) -> int:
        """Write the int8 file with corrected biases; how many layers have other ones."""
