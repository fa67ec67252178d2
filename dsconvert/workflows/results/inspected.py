"""What a model's convolutions are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from dsconvert.base.input_size import UNKNOWN
from dsconvert.base.tables import Block, Shown, Table
from dsconvert.converter.inspect import MOST_PAIRS, Inspection

from .. import formatting

if TYPE_CHECKING:
    from dsconvert.converter.inspect import Inspected

_KINDS = {
    "pointwise": "1×1 (nothing to separate)",
    "depthwise": "depthwise already",
    "quantized": "quantized already (of .onnx files --dequantize reads the float form)",
    "transpose": "transposed",
    "stem": "stem of few channels, whose pairs are no faster (--include NAME to insist)",
}
"""Reasons that say the same of every layer, in few words."""


class InspectedModel(Shown, Inspection, frozen=True, kw_only=True):
    """A model, convolution by convolution."""

    def blocks(self) -> Iterator[Block]:
        """Yield what is to be gained, then the convolutions that can be replaced, one a line."""
        yield self.potential.text
        yield self._totals()
        rows = [row for row in self.convolutions if row.options and row.reason is None]
        if rows:
            yield _table(rows, self.calibration_images)
            yield _meaning(self.calibration_images)
            yield from _three_factor(rows)
        yield from _left_alone(self.convolutions)

    def details(self) -> Iterator[Block]:
        """Yield every convolution, with the weights' errors, or the reason that it stays."""
        yield self.potential.text
        yield self._totals()
        yield _table(self.convolutions, self.calibration_images)
        yield _meaning(self.calibration_images)
        errors = tuple(f"T={option}" for option in range(1, MOST_PAIRS + 1))
        table = Table(("layer",), errors, ("left alone because",))
        for row in self.convolutions:
            weights = [formatting.percent(option.weight_error) for option in row.options]
            table.add(row.name, *(weights or [""] * 4), row.reason.text if row.reason else "")
        yield "Errors of the weights, ‖W − Ŵ‖ / ‖W‖; those of the outputs are what counts:"
        yield table

    def _totals(self) -> str:
        macs = formatting.short(self.macs, "MACs") if self.macs else f"MACs unavailable: {UNKNOWN}"
        kernels = "" if self.kernels is None else f", {self.kernels:,} of them in kernels"
        separator = "," if self.macs else ";"
        return f"The whole model: {macs}{separator} {self.params:,} parameters{kernels}."


def _table(rows: Sequence[Inspected], images: int) -> Table:
    """Return what each convolution is, and what pairs would make of it."""
    errors = tuple(f"T={pairs}" for pairs in range(1, MOST_PAIRS + 1)) if images else ()
    last = ("fit at T=1",) if images else ()
    table = Table(
        ("layer", "kernel", "C→N", "MACs", "params", "saves at T=1"),
        errors,
        last,
        least=("params", "T=1", "T=3", "C→N"),
    )
    for row in rows:
        found = [option.data_error for option in row.options]
        cells = [formatting.percent(error) for error in found] or [""] * len(errors)
        fits = [*cells, formatting.fit(found[0]) if found else ""] if images else []
        table.add(row.name, *_geometry(row), _saves(row), *fits)
    return table


def _meaning(images: int) -> str:
    """Tell what the columns of errors are, or how to get them."""
    if not images:
        return "Add --calibration DATA to see how well pairs would fit."
    return f"T = 1 … 4 pairs: the error of the layer's output, fitted to {images} images."


def _three_factor(rows: Sequence[Inspected]) -> Iterator[Block]:
    """Yield the errors of blocks of as many MACs beside those of the pairs."""
    fitted = [row for row in rows if row.three_factor]
    if not fitted:
        return
    yield "Three-factor blocks of as many MACs as T pairs: their error, and R, the channels inside:"
    table = Table(("layer",), tuple(f"T={pairs}" for pairs in range(1, MOST_PAIRS + 1)))
    for row in fitted:
        cells = [f"{formatting.percent(x.data_error)} ({x.channels})" for x in row.three_factor]
        table.add(row.name, *cells)
    yield table


def _left_alone(rows: Sequence[Inspected]) -> Iterator[str]:
    """Yield one line per kind of convolution that stays: "left alone: 49 × 1×1"."""
    groups: dict[str, list[Inspected]] = {}
    for row in rows:
        if row.reason is not None:
            groups.setdefault(row.reason.code, []).append(row)
    for found in sorted(groups.values(), key=len, reverse=True):
        reason = found[0].reason
        assert reason is not None, "it was grouped by its reason"
        more = f" and {len(found) - 1} like it" if len(found) > 1 else ""
        if reason.code in _KINDS:
            yield f"left alone: {len(found)} × {_KINDS[reason.code]}"
        else:
            yield f"left alone: {found[0].name}{more}: {reason.text}"


def _geometry(row: Inspected) -> list[str]:
    if row.spec is None:
        return ["", "", "", ""]
    kh, kw = row.spec.kernel_size
    stride = "" if row.spec.strides == (1, 1) else f"/{row.spec.strides[0]}"
    return [
        f"{kh}×{kw}{stride}",
        f"{row.spec.in_channels}→{row.spec.out_channels}",
        formatting.short(row.macs),
        f"{row.params:,}",
    ]


def _saves(row: Inspected) -> str:
    if not row.options:
        return ""
    first = row.options[0]
    if row.macs:
        return f"{formatting.ratio(row.macs, first.macs)} MACs"
    return f"{formatting.ratio(row.params, first.params)} params"
