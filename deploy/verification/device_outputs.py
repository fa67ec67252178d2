"""Whether what a device answers is what this machine answers: a wrong answer has no latency.

Two processors that both compute a file right differ by rounding only.

- float32: a sum of n products in another order differs by about √n · 2⁻²⁴ of its size, 4e-6 for the
  4,608 products of a 3×3 convolution of 512 channels, and a hundred layers by ten times that:
  88 dB. `verify` asks for 60, a relative error of 1e-3, and so does this.
- float16: Arm computes in float16 what x86 computes in float32, 2⁻¹¹ instead of 2⁻²⁴ at each value.
- int8: each value may fall on the next step where two kernels round a tie or a scale differently.
  That is less than the quantization itself does, and a file whose quantization leaves less than
  10 dB is broken. Where the output's scale is known, two of its steps are always allowed: an output
  of few steps has no better SQNR.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dsconvert.base.fidelity import compare_outputs
from dsconvert.base.output_fidelity import failures
from dsconvert.base.predictor import Array

from ..runtimes.precision import precision_of
from ..runtimes.samples import shape_text
from ..runtimes.tensor_info import TensorInfo
from .tolerances import judge_outputs, tolerance_of

_STEPS = 2.0


def wrong_answer(
    path: Path,
    infos: Sequence[TensorInfo],
    expected: Sequence[Array],
    got: Sequence[Array],
    inputs: Sequence[Array] = (),
) -> str:
    """Tell why outputs are no answer; empty if they are one.

    Args:
        path: The file, whose precision says how close they must be.
        infos: Its outputs.
        expected: This machine's, real-valued.
        got: The device's.
        inputs: What both were fed: an output of an input's shape, a denoiser's, is also judged by
            what the file changes in it.
    """
    if len(got) != len(expected):
        return f"it gave {len(got)} outputs, this machine {len(expected)}"
    for info, here, there in zip(infos, expected, got, strict=True):
        if here.shape != there.shape:
            return (
                f"its output {info.name} has the shape {shape_text(there.shape)}, "
                f"on this machine {shape_text(here.shape)}"
            )
    tolerance = tolerance_of(precision_of(path))
    found: list[str] = []
    for info, here, there in zip(infos, expected, got, strict=True):
        if info.scale is not None and _steps_apart(here, there, info.scale) <= _STEPS:
            continue
        fed = [_batched(array) for array in inputs]
        fidelity = compare_outputs([info.name], [_batched(here)], [_batched(there)], inputs=fed)
        found += failures(judge_outputs(fidelity, tolerance))
    return f"a wrong answer: {'; '.join(found)}" if found else ""


def not_finite(outputs: Sequence[Array]) -> str:
    """Tell why outputs are no answer by themselves; empty if they may be one."""
    finite = all(np.isfinite(output).all() for output in outputs)
    return "" if finite else "its outputs hold NaN or infinity"


def _steps_apart(here: Array, there: Array, scale: float) -> float:
    """Return the largest difference in steps; rounded, since both are multiples of the scale."""
    difference = np.abs(np.asarray(here, np.float64) - np.asarray(there, np.float64))
    return float(np.round(np.max(difference, initial=0.0) / scale, 3))


def _batched(array: Array) -> Array:
    """At least a batch axis: a scalar output has none."""
    return np.atleast_1d(array)
