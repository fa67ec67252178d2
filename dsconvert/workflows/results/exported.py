"""What an export came to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from dsconvert.base.tables import Block, Shown, Table
from dsconvert.deploy.exporting.records import Artifact

from .. import formatting

if TYPE_CHECKING:
    from dsconvert.base.fidelity import OutputFidelity
    from dsconvert.deploy.exporting.layer_types import QuantizationReport


class ExportedFile(Shown, Artifact, frozen=True, kw_only=True):
    """A file that was exported, verified and put in its place.

    Example:
        >>> import dsconvert as ds
        >>> exported = ds.export("model.keras", "float.tflite", overwrite=True)
        >>> exported.format, exported.quantization, exported.verified_on
        ('tflite', 'none', 'random inputs')
    """

    def blocks(self) -> Iterator[Block]:
        """Yield the file, its fidelity and what to know of it."""
        quantized = "float32" if self.quantization == "none" else self.quantization
        yield f"{self.path}: {self.format} {quantized}, {formatting.kib(self.size_bytes)}"
        yield f"SHA-256 {self.sha256}"
        if self.calibration is not None:
            yield f"calibrated on {self.calibration.samples} samples of {self.calibration.source}"
        for output in self.fidelity:
            yield told_fidelity(output, self.samples, self.verified_on)
        if self.layers is not None:
            yield from _layers(self.layers)
        yield from (f"note: {remark}" for remark in self.notes)


def told_fidelity(output: OutputFidelity, samples: int, what: str) -> str:
    """Tell how close one output is, on what."""
    from dsconvert.base.output_fidelity.channel_groups import named

    parts = [f"relative error {output.relative_error:.2g}"] if output.relative_error else []
    if output.sqnr_db is not None:
        parts.append(f"SQNR {output.sqnr_db:.1f} dB")
    if output.worst is not None:
        channels = named(output.worst.channels)
        parts.append(f"SQNR of {channels}, the worst, {formatting.sqnr(output)}")
    if output.top1_agreement is not None:
        parts.append(f"top-1 agreement {formatting.percent(output.top1_agreement)}")
    return f"{output.name}: {', '.join(parts) or 'equal'} on {samples} samples ({what})"


def _layers(report: QuantizationReport) -> Iterator[Block]:
    """Yield one line per layer, the five worst marked."""
    worst = {layer.name for layer in report.worst(5)}
    table = Table(("layer", "operator", "SQNR", ""))
    for layer in report.layers:
        told = "equal" if layer.sqnr_db is None else f"{layer.sqnr_db:.1f} dB"
        told = told if layer.finite else "not finite"
        table.add(layer.name, layer.op, told, "◂ worst five" if layer.name in worst else "")
    yield table
    yield (
        f"each layer's output in int8 against float32, on {report.samples} samples; what the "
        "layers before it lost is in it"
    )
