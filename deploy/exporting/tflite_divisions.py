"""Divisions of a .tflite file by what int8 rounds to 0, at which LiteRT ends.

They stay in float, with all that makes the divisor up to the layer with weights before it: behind a
tensor of integers small values are 0 already.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dsconvert.base.predictor import Array

from .tflite_activations import TfliteValues

_WEIGHTED = frozenset(
    ("Conv_2D", "Conv_3D", "Depthwise_Conv_2D", "Transpose_Conv", "Fully_Connected", "Batch_Matmul")
)
_FEW = 4 / 255
"""Share of a range, of four steps: a divisor of so few may be 0 on other samples."""


def dividing(path: Path, samples: Sequence[Array]) -> list[int]:
    """Find the divisions, and what makes their divisors, by the tensors that they make.

    Args:
        path: A float32 file.
        samples: One array per input, (n, ...), as the file takes them.
    """
    file = TfliteValues(path)
    made = {one: (kind, reads) for kind, reads, makes in file.operators() for one in makes}
    divisions = {
        one: reads[1] for one, (kind, reads) in made.items() if kind == "Div" and reads[1] in made
    }
    divisors = list(dict.fromkeys(divisions.values()))
    size = int(file.batch or 1)
    low, high, least = (np.full(len(divisors), end) for end in (0.0, 0.0, np.inf))
    for start in range(0, len(samples[0]), size):
        rows = np.arange(start, start + size) % len(samples[0])
        for i, value in enumerate(file.values([array[rows] for array in samples], divisors)):
            low[i], high[i] = min(low[i], value.min()), max(high[i], value.max())
            least[i] = min(least[i], np.abs(value).min())
    small = {one for i, one in enumerate(divisors) if least[i] < (high[i] - low[i]) * _FEW}
    found = [one for one, divisor in divisions.items() if divisor in small]
    queue = [divisions[one] for one in found]
    while queue:
        tensor = queue.pop()
        if tensor in found or tensor not in made:
            continue
        found.append(tensor)
        kind, reads = made[tensor]
        if kind not in _WEIGHTED:
            queue += reads
    return found
