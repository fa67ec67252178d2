"""What a verification came to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import msgspec

from dsconvert.base.tables import Block, Shown, Table

from .. import formatting

if TYPE_CHECKING:
    from dsconvert.base.fidelity import OutputFidelity
    from dsconvert.base.output_fidelity import Finding
    from dsconvert.base.predictor import Shape
    from dsconvert.deploy.runtimes.precision import Precision
    from dsconvert.deploy.verification.tolerances import Thresholds
    from dsconvert.models.data.preprocess import Preprocessing


class Verification(Shown, msgspec.Struct, frozen=True, kw_only=True):
    """The outputs of one model file compared with those of another.

    Attributes:
        reference: File A, which is believed.
        model: File B.
        precision: What B stores.
        source: The samples.
        samples: How many.
        preprocessing: What was done to them.
        thresholds: What every output must reach.
        shapes: The shape of each of A's outputs, batch axis first.
        fidelity: How close each of B's outputs is.
        findings: What is wrong or doubtful with each output, with its figures.
        remarks: What a reader should not be misled by.
        failures: What is wrong; empty if nothing is.
        passed: Whether nothing is.
    """

    schema: Literal["dsconvert.verification/1"] = "dsconvert.verification/1"
    reference: str
    model: str
    precision: Precision
    source: str
    samples: int
    preprocessing: Preprocessing
    thresholds: Thresholds
    shapes: tuple[Shape, ...]
    fidelity: tuple[OutputFidelity, ...]
    findings: tuple[Finding, ...] = ()
    remarks: tuple[str, ...]
    failures: tuple[str, ...]
    passed: bool

    def blocks(self) -> Iterator[Block]:
        """Yield one line per output, and what is wrong."""
        figures = ("SQNR", "relative error", "max error", "KL, nats", "top-1 agreement")
        table = Table(
            ("output", "shape"),
            (*figures, "classes", "finite"),
            least=("finite", "max error", "shape", "classes"),
        )
        for output, shape in zip(self.fidelity, self.shapes, strict=True):
            classes = output.reference_classes
            table.add(
                output.name,
                "×".join("n" if size is None else str(size) for size in shape),
                formatting.sqnr(output),
                formatting.short(output.relative_error),
                formatting.short(output.max_abs_error),
                formatting.kl(output),
                formatting.percent(output.top1_agreement),
                "–" if classes is None else " of ".join(map(str, (classes, *shape[-1:]))),
                "yes" if output.finite else "no",
            )
        yield f"{self.model} ({self.precision}) against {self.reference}"
        yield table
        yield from formatting.groups(self.fidelity)
        yield f"on {self.samples} samples of {self.source}"
        yield from (f"note: {remark}" for remark in self.remarks)
        yield from (f"failed: {failure}" for failure in self.failures)
        yield "passed" if self.passed else "NOT passed"
