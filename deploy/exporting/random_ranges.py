"""Random inputs of other ranges, for models that amplify rounding on numbers around 0."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dsconvert.base.output_fidelity import Finding
from dsconvert.base.predictor import Array
from dsconvert.formats.quantization import Quantization

from ..verification.gate import Verdict, judge
from ..verification.telling_inputs import RANGES, in_range
from .held_out import ExportSource

_ROUNDING_DB = 10.0
"""SQNR from which on a float file may differ by amplified rounding alone."""
_COARSE_DB = 5.0
"""The same of a file with int8 weights."""


def may_be_rounding(findings: Sequence[Finding], quantize: Quantization | None) -> bool:
    """Tell whether a file is refused for nothing but an SQNR that rounding may explain.

    Args:
        findings: What was found on numbers around 0.
        quantize: What the file was made with; None where that is not known.
    """
    refused_for = [one for one in findings if one.severity == "failure"]
    known = {"none": _ROUNDING_DB, "float16": _ROUNDING_DB, "dynamic": _COARSE_DB}
    least = known.get(quantize or "int8")
    return bool(refused_for) and all(
        least is not None and one.code == "group-below" and one.figures["sqnr_db"] >= least
        for one in refused_for
    )


def on_another_range(
    source: ExportSource, path: Path, inputs: Sequence[Array], quantize: Quantization
) -> tuple[Verdict, str] | None:
    """Judge a file on random images of 0 … 1 and of 0 … 255, where numbers around 0 refuse it.

    A network for images of 0 … 255 amplifies rounding where it is fed noise around 0, and which
    range it is made for does not stand in the model.

    Args:
        source: The model.
        path: The file.
        inputs: Numbers around 0, one array per input, (n, ...).
        quantize: What the file was made with.

    Returns:
        The verdict on the first range on which the file passes, with a note; None for no range.
    """
    for told, scale, shift in RANGES:
        moved = in_range(inputs, scale, shift)
        verdict = judge(path, source.output_names, source.predict(moved), moved, quantize)
        if not verdict.failures and not verdict.findings:  # saturated outputs say nothing
            return verdict, f"its outputs are the model's on random images of {told}"
    return None
