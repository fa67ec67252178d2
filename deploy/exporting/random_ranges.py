"""Random inputs of other ranges, for models that amplify rounding on numbers around 0."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dsconvert.base.fidelity import OutputFidelity
from dsconvert.base.output_fidelity import Finding
from dsconvert.base.output_fidelity.group_error import group_noise
from dsconvert.base.predictor import Array
from dsconvert.formats.quantization import Quantization

from ..verification.gate import Verdict, judge
from ..verification.telling_inputs import RANGES, Predict, in_range
from .held_out import ExportSource

_ROUNDING_DB = 10.0
"""SQNR from which on a float file may differ by amplified rounding alone."""
_COARSE_DB = 5.0
"""The same of a file with int8 weights."""
_SURE_DB = 90.0
"""SQNR on images with which a float32 file is the model: sums in another order give 100 dB."""
_STEEP = 20.0
"""How many dB below its own rounding noise it may be: ten times as much."""
_STEP = np.float32(1 + 2**-23)
"""From one number to the next."""


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


def leaves_rounding_alone(
    fidelity: Sequence[OutputFidelity],
    quantize: Quantization | None,
    predict: Predict,
    inputs: Sequence[Array],
) -> bool:
    """Tell whether what a file misses on images is rounding, too, and hidden by nothing larger.

    Beside images of 0 … 255 what a broken bias or channel adds may be small enough for a float32
    file to pass. Outputs that amplify rounding on images are measured by themselves.

    Args:
        fidelity: How close the outputs are on images.
        quantize: What the file was made with; what is coarser than float32 is not looked at.
        predict: The reference: one array per output, (n, ...), for one array per input.
        inputs: The images, one array per input, (n, ...).
    """
    levels = [one.worst_db for one in fidelity]
    worst = min((level for level in levels if level is not None), default=math.inf)
    if quantize != "none" or worst >= _SURE_DB:
        return True
    near = [array * _STEP if array.dtype == np.float32 else array for array in inputs]
    pairs = zip(predict(inputs), predict(near), strict=True)
    noise = max((max(group_noise(one, other)) for one, other in pairs), default=0.0)
    return noise > 0 and worst >= -10 * math.log10(noise) - _STEEP


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
            if not leaves_rounding_alone(verdict.fidelity, quantize, source.predict, moved):
                continue
            return verdict, f"its outputs are the model's on random images of {told}"
    return None
