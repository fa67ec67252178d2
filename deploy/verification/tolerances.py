"""When a model's outputs are close enough to another's: by what its file stores, or as asked."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from dsconvert.base.fidelity import OutputFidelity
from dsconvert.base.output_fidelity import Tolerance
from dsconvert.formats.quantization import Quantization

from ..runtimes.precision import Precision


class Thresholds(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every output must reach; None asks for nothing.

    Attributes:
        min_sqnr_db: SQNR in dB.
        min_agreement: Top-1 agreement of class outputs, 0.99 for 99 %, over more than one class.
        max_kl_nats: Mean KL divergence of class distributions in nats.
        excused: With a default ``min_sqnr_db`` alone: the top-1 agreement, over more than one
            class, that excuses a class output below it.

    Example:
        >>> import dsconvert as ds
        >>> ds.Thresholds(min_sqnr_db=20, max_kl_nats=0.01).min_agreement is None
        True
    """

    min_sqnr_db: float | None = None
    min_agreement: float | None = None
    max_kl_nats: float | None = None
    excused: float | None = None


_INT8 = Tolerance(min_sqnr_db=10.0, floor=3 / 255, excused=0.9, half_step=1 / 512)

DEFAULTS: dict[Precision, Thresholds] = {
    # A relative error of 1e-3: the same arithmetic in another order stays far below.
    "float32": Thresholds(min_sqnr_db=60.0),
    # 5e-2: weights rounded by up to 5e-4, and room for outputs that nearly cancel.
    "float16": Thresholds(min_sqnr_db=26.0),
    # Good files reach 20 dB and more, broken ones fall below 5.
    "int8": Thresholds(min_sqnr_db=10.0, excused=0.9),
}
"""Those of `verify`, in dB."""


OUTPUT_TOLERANCES: dict[Quantization, Tolerance] = {
    # The same arithmetic in another order: 120 dB were seen, 1e-6 of the largest value.
    "none": Tolerance(min_sqnr_db=60.0, floor=1e-5, defect=0.01),
    # Weights rounded by up to 2⁻¹¹, and room for outputs that nearly cancel: 40 dB were seen.
    "float16": Tolerance(min_sqnr_db=26.0, floor=2**-9, defect=0.02),
    # Sound files reach 15 dB and more, broken ones fall below 5. Three steps of an output that
    # hardly changes are no error of the file's, nor is half a step of a probability.
    "dynamic": _INT8,
    "int8": _INT8,
    "int8-float-io": _INT8,
    # Only the weights are rounded coarsely: sound files reach 26 dB and more.
    "int16x8": Tolerance(min_sqnr_db=20.0, floor=1 / 255, half_step=2**-16),
}
"""How far each group of an output's channels may be from the reference's."""


def failures(outputs: Sequence[OutputFidelity], limits: Thresholds) -> tuple[str, ...]:
    """What is wrong, one sentence per output and threshold; empty if everything holds."""
    return tuple(text for output in outputs for text in _failures(output, limits))


def remarks(outputs: Sequence[OutputFidelity]) -> tuple[str, ...]:
    """What a reader should not be misled by."""
    return tuple(
        f"{output.name}: the reference predicts a single class on these samples, so a top-1 "
        "agreement proves nothing"
        for output in outputs
        if output.finite and output.reference_classes == 1
    )


def _failures(output: OutputFidelity, limits: Thresholds) -> list[str]:
    if not output.finite:
        return [f"{output.name} is not finite"]
    found = []
    low = limits.min_sqnr_db is not None and sqnr(output) < limits.min_sqnr_db
    if low and not _agrees(output, limits.excused):
        text = f"{output.name} has an SQNR of {sqnr(output):.1f} dB"
        found.append(f"{text}, needed are {limits.min_sqnr_db:g}")
    if limits.min_agreement is not None and output.top1_agreement is not None:
        agreement = f"{output.name} has a top-1 agreement of {output.top1_agreement:.1%}"
        if output.top1_agreement < limits.min_agreement:
            found.append(f"{agreement}, needed are {limits.min_agreement:.1%}")
        elif output.reference_classes == 1:
            found.append(f"{agreement} over a single class, which proves nothing")
    if limits.max_kl_nats is not None and output.kl_nats is not None:
        kl = output.kl_nats
        if kl > limits.max_kl_nats:
            text = f"{output.name} has a KL divergence of {kl:.3g} nats"
            found.append(f"{text}, allowed are {limits.max_kl_nats:g}")
    return found


def _agrees(output: OutputFidelity, least: float | None) -> bool:
    classes = output.reference_classes or 0
    return least is not None and classes > 1 and (output.top1_agreement or 0.0) >= least


def sqnr(output: OutputFidelity) -> float:
    """SQNR in dB; infinite for equal outputs, −infinite where there is no signal or no number."""
    if output.sqnr_db is not None:
        return output.sqnr_db
    return math.inf if output.relative_error == 0 else -math.inf
