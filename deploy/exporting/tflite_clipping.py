"""Ranges of least squared error for a .tflite model, written before the converter reads them."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from dsconvert.base.errors import require
from dsconvert.base.predictor import Array

from ..runtimes.samples import portions
from .clipped_ranges import SAMPLES, Histogram, Range, edges
from .tflite import in_order
from .tflite_activations import TfliteValues


def clipped_model(
    calibrated: bytes, inputs: Sequence[str], outputs: Sequence[str], samples: Sequence[Array]
) -> bytes:
    """Return a calibrated .tflite model whose inner tensors have the ranges of least error.

    Inputs and outputs keep theirs, and so does what only moves them: whoever feeds the file counts
    on the steps of its images, and the greatest value of an output is what a user looks for.

    Args:
        calibrated: The model in float, with the ranges of all tensors that will have integers.
        inputs: What its inputs are called, in the order of the samples.
        outputs: What its outputs are called.
        samples: One array per input, (n, ...).

    Raises:
        InputError: If the model does not run on the samples.
    """
    schema = require("ai_edge_litert.schema_py_generated", "keras", "to write .tflite files")
    content = in_order(calibrated, inputs, outputs)
    graph = schema.Model.GetRootAs(content).Subgraphs(0)
    ends = {}
    for i in range(graph.TensorsLength()):
        found = graph.Tensors(i).Quantization()
        if found is not None and found.MaxLength() == 1:
            ends[i] = (found.MinAsNumpy(), found.MaxAsNumpy())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "calibrated.tflite"
        path.write_bytes(content)
        file = TfliteValues(path)
        operators = file.operators()
        made = {i for _, _, outputs in operators for i in outputs}
        made -= edges(file.input_tensors, file.output_tensors, operators)
        counts = {
            i: Histogram(Range(float(low[0]), float(high[0])))
            for i, (low, high) in ends.items()
            if i in made
        }
        some = [array[:SAMPLES] for array in samples]
        for part in portions(some, file.inputs[0].shape[0] or 1):
            values = file.values(part, list(counts))
            for histogram, one in zip(counts.values(), values, strict=True):
                histogram.add(one)
    for i, histogram in counts.items():
        low, high = ends[i]
        low[0], high[0] = histogram.least_error()
    return bytes(content)
