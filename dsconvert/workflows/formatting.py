"""Figures as people read them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dsconvert.base.units import short as short

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dsconvert.base.fidelity import OutputFidelity
    from dsconvert.models.evaluation.metrics.metric import MetricValue


def percent(value: float | None, digits: int = 1) -> str:
    """0.1234 as "12.3 %"; None as "–"."""
    return "–" if value is None else f"{100 * value:.{digits}f} %"


EXCELLENT, GOOD = 0.1, 0.3
"""Data errors up to which a fit needs no words: SQNRs of 20 and 10.5 dB of the layer's output."""


def fit(data_error: float | None) -> str:
    """Tell how well a block does its layer's work: "excellent, 1.2 %"; "–" where unknown."""
    if data_error is None:
        return "–"
    word = "excellent" if data_error <= EXCELLENT else "good" if data_error <= GOOD else ""
    return f"{word or 'needs fine-tuning'}, {percent(data_error)}"


def amount(value: float | None, unit: str, digits: int = 2) -> str:
    """A figure of a metric: 0.8712 of a share as "87.12 %", 32.123 dB as "32.12 dB"."""
    if value is None:
        return "–"
    if unit == "share":
        return percent(value, digits)
    return f"{value:.{digits}f} dB" if unit == "dB" else f"{value:.4g}"


def loss(value: float, unit: str) -> str:
    """Return what a metric lost: 0.0123 of a share as "1.23 points"."""
    return f"{100 * value:.2f} points" if unit == "share" else amount(value, unit)


def metric(found: MetricValue) -> str:
    """Return a metric with its 95 % interval: "87.12 % (85.03 to 88.94)"."""
    if found.value is None:
        return "–"
    value = amount(found.value, found.unit)
    if found.low is None or found.high is None:
        return value
    low, high = (amount(end, found.unit).removesuffix(" %") for end in (found.low, found.high))
    return f"{value} ({low.removesuffix(' dB')} to {high.removesuffix(' dB')})"


def ratio(before: float | None, after: float | None) -> str:
    """Tell how many times smaller: "3.4×"; "–" where unknown."""
    return "–" if not before or not after else f"{before / after:.2f}×"


def change(before: float | None, after: float | None) -> str:
    """Tell how many times fewer, or more: "3.4× fewer"; "–" where unknown."""
    if not before or not after:
        return "–"
    return f"{after / before:.2f}× more" if after > before else f"{before / after:.2f}× fewer"


def kib(size: int) -> str:
    """Bytes as KiB or MiB."""
    return f"{size / 1024:.1f} KiB" if size < 1 << 20 else f"{size / (1 << 20):.2f} MiB"


def ms(value: float | None) -> str:
    """Milliseconds with three significant digits."""
    return "–" if value is None else f"{value:.3g} ms"


def file(path: str, size: int | None, digest: str) -> str:
    """Return a written file with its size and hash."""
    return f"{path}: {kib(size or 0)}, SHA-256 {digest}"


def sqnr(output: OutputFidelity) -> str:
    """The SQNR of an output's worst group of channels: "31.4 dB", "equal", or "–" without one."""
    if output.worst_db is not None:
        return f"{output.worst_db:.1f} dB"
    return "equal" if output.relative_error == 0 else "–"


def kl(output: OutputFidelity) -> str:
    """The KL divergence of an output's class scores in nats: "0.00173"; "–" without one."""
    return "–" if output.kl_nats is None else f"{output.kl_nats:.3g}"


def groups(outputs: Sequence[OutputFidelity]) -> list[str]:
    """Return a line on each output whose channels are of several scales, with its worst group."""
    from dsconvert.base.output_fidelity.channel_groups import named

    return [
        f"{output.name}: {len(output.measure.groups)} scales, the worst is that of "
        f"{named(output.worst.channels)} with {output.worst.sqnr_db:.1f} dB"
        for output in outputs
        if output.measure is not None and output.worst is not None
    ]
