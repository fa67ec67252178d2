"""The files that are timed: a block in each of its forms, written and exported as a network is."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dsconvert.base.errors import MissingExtra, require
from dsconvert.base.predictor import Array
from dsconvert.converter.core.planning.cost_model import Block
from dsconvert.converter.core.types import Choice
from dsconvert.formats.onnx.messages import in_bytes
from dsconvert.formats.quantization import Quantization
from dsconvert.formats.tflite.subgraph import one_output_each

from ..exporting.onnx_prepare import prepared
from ..exporting.onnx_source import read_onnx
from ..exporting.onnx_static import quantize_static
from ..exporting.tflite import converted
from .target import Precision

Forms = Sequence[Choice | None]
"""What replaces a convolution; None stands for the convolution itself."""

_IMAGES = 4
"""Random images that int8 activations get their ranges from."""


def block_files(
    block: Block, forms: Forms, suffix: str, precision: Precision
) -> list[bytes | Exception]:
    """Write a convolution and what may replace it as files of batch 1.

    The layers or nodes are those that a rewrite writes, and the files are made by what exports and
    quantizes whole networks: what is timed is what will run.

    Args:
        block: The convolution.
        forms: How to write it.
        suffix: ".tflite" or ".onnx".
        precision: "int8" is static, with ranges from random images.

    Returns:
        One file for each form, or why there is none.

    Raises:
        MissingExtra: If what writes the files is not installed.
    """
    if suffix == ".onnx":
        return [_attempt(partial(_onnx, block, form, precision)) for form in forms]
    together = _attempt(partial(_tflite, block, forms, precision))
    if isinstance(together, list):
        return list(together)
    if len(forms) == 1:
        return [together]
    # One form that the converter refuses would take all others with it.
    return [one for form in forms for one in block_files(block, [form], suffix, precision)]


def _attempt(write: Callable[[], Any]) -> Any:
    try:
        return write()
    except MissingExtra:
        raise
    except Exception as error:  # converters and quantizers raise anything
        return error


def _tflite(block: Block, forms: Forms, precision: Precision) -> list[bytes]:
    """All forms by one conversion, which takes about as long as one: outputs of one model."""
    require("tensorflow", "keras", "to write .tflite files")
    from dsconvert.converter.backends.keras.block_model import block_model

    images = _images((_IMAGES, *block.input_size, block.in_channels))
    quantize: Quantization = "none" if precision == "float32" else "int8"
    return one_output_each(converted(block_model(block, forms), quantize, images))


def _onnx(block: Block, form: Choice | None, precision: Precision) -> bytes:
    require("onnx", "onnx", "to write .onnx files")
    from dsconvert.converter.backends.onnx.block_model import block_model

    content = in_bytes(block_model(block, form))
    if precision == "float32":
        return content
    images = _images((_IMAGES, block.in_channels, *block.input_size))
    with tempfile.TemporaryDirectory() as folder:
        plain, path = Path(folder, "block.onnx"), Path(folder, "block_int8.onnx")
        plain.write_bytes(content)
        ready, _ = prepared(read_onnx(plain), Path(folder), [images])
        quantize_static(ready, path, [images])
        return path.read_bytes()


def _images(shape: tuple[int, ...]) -> Array:
    return np.random.default_rng(0).standard_normal(shape, np.float32)
