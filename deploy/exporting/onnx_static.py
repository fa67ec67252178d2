"""Static int8 quantization of an .onnx file by ONNX Runtime's own quantizer: QDQ, per channel."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

import numpy as np

from dsconvert.base.errors import InputError, require
from dsconvert.base.files import refuse_without_room
from dsconvert.base.predictor import Array
from dsconvert.base.quiet import captured
from dsconvert.formats.onnx.open import load
from dsconvert.formats.onnx.save import save
from dsconvert.formats.quantization import CalibrationMethod

from ..runtimes.registry import open_runtime
from ..runtimes.samples import are_samples, first_samples, samples_of
from ..runtimes.session import Session, encode, first_line
from .clipped_ranges import SAMPLES as CLIPPING_SAMPLES
from .clipped_ranges import Histogram, Range, edges
from .onnx_activations import watched_values
from .onnx_masks import masking
from .onnx_misread import hold_in_float, left_in_float, one_scale
from .onnx_norms import dividing
from .onnx_outputs import give_back, take_echoes

_METHODS: dict[CalibrationMethod, str] = {
    "minmax": "MinMax",
    "entropy": "Entropy",
    "percentile": "Percentile",
    "mse": "MinMax",
}
_BINS = 512
"""Of a histogram that entropy is to shorten to 128: ONNX Runtime makes only 128 of them, of which
nothing is left to cut off. Twice as many take four times as long."""
_AT_ONCE = 8
"""Samples whose activations are counted at once."""
_STRIDE = 8
"""Runs whose activations are held at once to make histograms of."""


def quantize_static(
    source: Path,
    path: Path,
    calibration: Sequence[Array],
    *,
    method: CalibrationMethod = "minmax",
    external: bool = False,
    exclude: Sequence[str] = (),
) -> None:
    """Write the int8 form of a float32 .onnx file.

    Weights have a scale per output channel and are symmetric. Activations are unsigned: with
    signed ones ONNX Runtime 1.31 on x86 leaves convolutions that share an input in float32.
    Inputs and outputs stay float32.

    Args:
        source: The float32 file.
        path: Where to write.
        calibration: One array per input, (n, ...), as the file takes them.
        method: How a range is taken from the activations: from the least to the greatest value,
            by the least KL divergence of the histogram (which cut too much from two small
            networks: SQNR 17 instead of 38 and 30 dB), by its 99.999th percentile, or by the
            least squared error.
        external: Whether to write large weights to a file beside.
        exclude: Names of the nodes to leave in float32.

    Raises:
        InputError: If ONNX Runtime cannot quantize the file.
    """
    quantization = require("onnxruntime.quantization", "onnx", "to quantize .onnx files")
    order = np.arange(samples_of(calibration))
    extra: dict[str, Any] = {"ActivationSymmetric": False, "WeightSymmetric": True}
    model = load(source)
    extra["TensorQuantOverrides"] = one_scale(model)
    if method in ("entropy", "percentile") and are_samples(calibration):
        # The histogram's bins are as wide as the first values need: largest first, since one that
        # grows a hundredfold later takes minutes to search.
        order = np.argsort([-max(float(np.abs(a[i]).max()) for a in calibration) for i in order])
    if method in ("entropy", "percentile"):
        extra["CalibStridedMinMax"] = _STRIDE  # of any method, in spite of its name
        extra["CalibTensorRangeSymmetric"] = False  # half of the steps after a ReLU
    reader = partial(_reader, open_runtime(source), calibration, order)
    in_float, echoes = left_in_float(model), take_echoes(model)
    parts = [*masking(model), *dividing(model)]
    with quantizing("Plan or export for float32 instead.", source), TemporaryDirectory() as folder:
        if echoes:
            beside, source = source.parent, Path(folder) / "parted.onnx"
            save(model, beside, source, overwrite=True, external=external, check=False)
        ranges = Path(folder) / "ranges.json"
        cached = {}
        if method == "entropy":
            _entropy_ranges(source, reader(), external, ranges)
        if method == "mse":
            _least_error_ranges(source, reader(), external, calibration, ranges)
        if method in ("entropy", "mse"):
            cached = {"calibration_cache_path": ranges}
        quantization.quantize_static(
            str(source),
            str(path),
            reader(),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=getattr(quantization.CalibrationMethod, _METHODS[method]),
            use_external_data_format=external,
            nodes_to_exclude=[*exclude, *in_float, *parts],
            extra_options=extra,
            **cached,
        )
    made = load(path) if echoes or in_float else None
    if made is not None:
        give_back(made, echoes)
        hold_in_float(made, in_float)
        save(made, path.parent, path, overwrite=True, external=external, check=False)


def _reader(runtime: Session, calibration: Sequence[Array], order: Array) -> Any:
    """Return what gives ONNX Runtime's calibration one batch after the other.

    Args:
        runtime: The file in its runtime.
        calibration: One array per input, (n, ...); inputs without a common batch are those of
            one run.
        order: The samples' numbers in the order of the batches, (n,).
    """
    quantization = require("onnxruntime.quantization", "onnx", "to quantize .onnx files")
    size, count, several = runtime.batch or 1, len(order), are_samples(calibration)
    batches = math.ceil(count / size)

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self.next, self.end = 0, batches

        def __len__(self) -> int:
            return math.ceil(batches / _STRIDE) * _STRIDE  # the strides that it asks for

        def set_range(self, start_index: int, end_index: int) -> None:
            self.next, self.end = start_index, min(end_index, batches)

        def get_next(self) -> dict[str, Array] | None:
            if self.next >= self.end:
                return None
            # The last batch of a fixed size is filled up with the first samples.
            rows = [order[i % count] for i in range(self.next * size, (self.next + 1) * size)]
            self.next += 1
            return {
                info.name: encode(array[rows] if several else array, info)
                for info, array in zip(runtime.inputs, calibration, strict=True)
            }

    return Reader()


def _entropy_ranges(source: Path, reader: Any, external: bool, path: Path) -> None:
    """Write the ranges of least KL divergence, as `quantize_static` reads them."""
    calibrate = require("onnxruntime.quantization.calibrate", "onnx", "to quantize .onnx files")
    calibrator = calibrate.create_calibrator(
        source,
        None,
        augmented_model_path=str(path.with_suffix(".onnx")),
        calibrate_method=calibrate.CalibrationMethod.Entropy,
        use_external_data_format=external,
        extra_options={"num_bins": _BINS},
    )
    for start in range(0, len(reader), _STRIDE):
        reader.set_range(start, start + _STRIDE)
        calibrator.collect_data(reader)
    calibrate.save_tensors_data(calibrator.compute_data(), path)


def _least_error_ranges(
    source: Path, reader: Any, external: bool, calibration: Sequence[Array], path: Path
) -> None:
    """Write the ranges of least squared error, as `quantize_static` reads them.

    Inputs and outputs keep theirs, from the least to the greatest value, and so does what only
    moves them: a network that comes from Keras begins with a Transpose.
    """
    calibrate = require("onnxruntime.quantization.calibrate", "onnx", "to quantize .onnx files")
    calibrator = calibrate.create_calibrator(
        source,
        None,
        augmented_model_path=str(path.with_suffix(".onnx")),
        use_external_data_format=external,
    )
    calibrator.collect_data(reader)
    found = calibrator.compute_data()
    model = load(source, weights=True)
    kept = edges(
        [value.name for value in model.graph.input],
        [value.name for value in model.graph.output],
        [(node.op_type, node.input, node.output) for node in model.graph.node],
    )
    ends = {
        name: Range(*(float(np.asarray(end).min()) for end in data.range_value))
        for name, data in found.items()
        if name not in kept
    }
    counts = {name: Histogram(one) for name, one in ends.items() if np.isfinite(one).all()}
    some = first_samples(calibration, CLIPPING_SAMPLES)
    for values in watched_values(model, list(counts), source, some, _AT_ONCE):
        for name, one in values.items():
            counts[name].add(one)
    for name, histogram in counts.items():
        data = found[name]
        data.lowest, data.highest = (
            np.asarray(end, np.asarray(data.lowest).dtype) for end in histogram.least_error()
        )
    calibrate.save_tensors_data(found, path)


@contextmanager
def quantizing(hint: str, source: Path) -> Iterator[None]:
    """Keep the quantizer's advice off the terminal, and make a sentence of what it raises.

    Args:
        hint: What to do instead.
        source: The file, of which copies are written beside it and among temporary files.

    Raises:
        InputError: If it raises anything; of a full disk, which it calls a corrupt model.
    """
    with quietly():
        try:
            yield
        except Exception as error:  # onnx's, ONNX Runtime's and plain ValueErrors
            refuse_without_room([Path(gettempdir()), source.parent], 2 * source.stat().st_size)
            folders = "|".join(map(re.escape, (str(source.parent), gettempdir())))
            said = re.sub(rf"(?:{folders})/\S*?\.onnx", "it", first_line(error))
            raise InputError(
                f"ONNX Runtime cannot quantize the model: {said}", hint, code="not-quantizable"
            ) from error


@contextmanager
def quietly() -> Iterator[None]:
    """Keep the quantizer's advice off the terminal: it prints, and logs on the root logger."""
    logger = logging.getLogger()
    level = logger.level
    try:
        logger.setLevel(logging.ERROR)
        with captured():
            yield
    finally:
        logger.setLevel(level)
