"""What a model's convolutions are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from dsconvert.base.tables import Block, Shown, Table
from dsconvert.converter.inspect import Inspection

from .. import formatting

if TYPE_CHECKING:
    from dsconvert.converter.inspect import Inspected


class InspectedModel(Shown, Inspection, frozen=True, kw_only=True):
    """A model, convolution by convolution."""

    def blocks(self) -> Iterator[Block]:
        """Yield one line per convolution: what it is, what pairs would make of it, or why not."""
        by_data = self.calibration_images > 0
        which = f"on {self.calibration_images} images" if by_data else "of the weights"
        macs = (
            formatting.short(self.macs, "MACs") if self.macs else "MACs unknown (free image size)"
        )
        kernels = "" if self.kernels is None else f", {self.kernels:,} of them in kernels"
        yield (
            f"{self.model}: {macs}, {self.params:,} parameters{kernels}. "
            f"Errors at T pairs are {which}, in %."
        )
        errors = tuple(f"T={pairs}" for pairs in range(1, 5))
        table = Table(("layer", "kernel", "C→N", "MACs", "params"), errors, ("saves at T=1",))
        for row in self.convolutions:
            table.add(row.name, *_geometry(row), *_errors(row, by_data), _saves(row))
        yield table


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


def _errors(row: Inspected, by_data: bool) -> list[str]:
    errors = [o.data_error if by_data else o.weight_error for o in row.options]
    return [f"{100 * (error or 0):.1f}" for error in errors] or [""] * 4


def _saves(row: Inspected) -> str:
    saves = ""
    if row.options:
        first = row.options[0]
        saves = f"{formatting.ratio(row.params, first.params)} params"
        if row.macs:
            saves += f", {formatting.ratio(row.macs, first.macs)} MACs"
    if row.reason is not None:
        saves += f"{'; ' if saves else ''}left alone: {row.reason.text}"
    return saves
