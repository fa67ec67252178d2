"""Whether a .tflite file is sound, before native code that trusts it sees it.

LiteRT follows every index and offset of a file. Here each of them is held against what it points
into, and each size against the file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from math import isfinite, prod
from pathlib import Path
from typing import Any

import numpy as np

from dsconvert.base.errors import InputError, require

_IDENTIFIER = b"TFL3"
_AXES = 8
"""Most axes of a tensor that a kernel takes."""
_LARGEST = 1 << 31
"""Bytes of a tensor: LiteRT's kernels count in 32 bits with a sign."""
_BITS = {
    **dict.fromkeys(("FLOAT32", "INT32", "UINT32"), 32),
    **dict.fromkeys(("FLOAT16", "BFLOAT16", "INT16", "UINT16"), 16),
    **dict.fromkeys(("INT8", "UINT8", "BOOL"), 8),
    **dict.fromkeys(("FLOAT64", "INT64", "UINT64", "COMPLEX64"), 64),
    "COMPLEX128": 128,
}
"""Of an element, by its type; the others are packed, or not of one size."""


_BROKEN = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
)
"""What comes of an offset that leads out of the file, or to something else."""


class _Unsound(Exception):
    """A phrase that says what is wrong."""


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Blame the file where reading it goes wrong: a reader follows whatever offsets it holds.

    Args:
        path: The file.

    Raises:
        InputError: In place of what a flatbuffer's accessors, and lists of the wrong length, raise.
    """
    try:
        yield
    except InputError:
        raise
    except _BROKEN as error:
        raise _damaged(path, f"what it holds leads nowhere ({type(error).__name__})") from error


def check_tflite(path: Path) -> int:
    """Refuse a .tflite file whose parts do not fit together.

    Args:
        path: The file.

    Returns:
        Bytes that its tensors without stored values declare, free sizes counted as 1.

    Raises:
        InputError: With the first thing that is wrong.
        MissingExtra: If what reads .tflite files is not installed.
    """
    schema = require("ai_edge_litert.schema_py_generated", "keras", "to read .tflite files")
    content = path.read_bytes()
    if content[4:8] != _IDENTIFIER:
        raise InputError(f"{path} is no TFLite file.", code="not-a-tflite-file")
    try:
        types = {n: name for name, n in vars(schema.TensorType).items() if isinstance(n, int)}
        return _checked(schema.Model.GetRootAs(content), len(content), types)
    except _Unsound as error:
        what = str(error)
    except _BROKEN as error:
        what = f"an offset leads out of it ({type(error).__name__})"
    raise _damaged(path, what)


def _damaged(path: Path, what: str) -> InputError:
    return InputError(
        f"{path} is damaged: {what}.",
        "Copy or download it again, or convert the model again.",
        code="damaged-file",
    )


def _checked(model: Any, size: int, types: dict[int, str]) -> int:
    buffers = _count(model.BuffersLength(), size, "buffers")
    stored = []
    for number in range(buffers):
        buffer = model.Buffers(number)
        length, offset, beyond = buffer.DataLength(), buffer.Offset(), buffer.Size()
        if length > size or (offset > 1 and offset + beyond > size):
            raise _Unsound(f"buffer {number} ends behind its end")
        stored.append(length or (beyond if offset > 1 else 0))
    codes = _count(model.OperatorCodesLength(), size, "operator codes")
    graphs = _count(model.SubgraphsLength(), size, "graphs")
    if not graphs:
        raise _Unsound("it holds no graph")
    return sum(
        _graph(model.Subgraphs(number), stored, codes, size, types) for number in range(graphs)
    )


def _graph(graph: Any, stored: list[int], codes: int, size: int, types: dict[int, str]) -> int:
    """Check one graph; the bytes of its activations."""
    tensors = _count(graph.TensorsLength(), size, "tensors")
    total = sum(_tensor(graph.Tensors(number), number, stored, types) for number in range(tensors))
    for what, indices in (("inputs", graph.InputsAsNumpy()), ("outputs", graph.OutputsAsNumpy())):
        _indices(f"the graph's {what}", indices, tensors, least=0)
    for number in range(_count(graph.OperatorsLength(), size, "operators")):
        operator = graph.Operators(number)
        if not 0 <= operator.OpcodeIndex() < codes:
            raise _Unsound(f"operator {number} has the unknown code {operator.OpcodeIndex()}")
        _indices(f"the inputs of operator {number}", operator.InputsAsNumpy(), tensors, least=-1)
        _indices(f"the outputs of operator {number}", operator.OutputsAsNumpy(), tensors, least=0)
    return total


def _tensor(tensor: Any, number: int, stored: list[int], types: dict[int, str]) -> int:
    """Check one tensor; its bytes if it holds no stored values."""
    name = f"tensor {number}"
    length = tensor.ShapeLength()
    shape = [int(one) for one in np.atleast_1d(tensor.ShapeAsNumpy())] if length else []
    if len(shape) > _AXES or min(shape, default=0) < 0:
        raise _Unsound(f"{name} has the shape {shape[:_AXES]}")
    bits = _BITS.get(types.get(tensor.Type(), ""), 0)
    if tensor.Type() not in types:
        raise _Unsound(f"{name} is of the unknown type {tensor.Type()}")
    size = prod(shape) * bits // 8
    if size > _LARGEST:
        raise _Unsound(f"{name} of the shape {shape} would take {size / 2**30:,.1f} GiB")
    if not 0 <= tensor.Buffer() < len(stored):
        raise _Unsound(f"{name} is in the unknown buffer {tensor.Buffer()}")
    _quantization(tensor.Quantization(), name, shape)
    held = stored[tensor.Buffer()]
    if held and bits and tensor.Sparsity() is None and held != size:
        raise _Unsound(f"{name} of the shape {shape} takes {size:,} bytes, and {held:,} are stored")
    return 0 if held else size


def _quantization(quantization: Any, name: str, shape: list[int]) -> None:
    if quantization is None:
        return
    scales = [float(one) for one in np.ravel(quantization.ScaleAsNumpy())]
    scales = scales if quantization.ScaleLength() else []
    if not all(isfinite(scale) and scale >= 0 for scale in scales):
        raise _Unsound(f"{name} has a scale that is no positive number")
    points = quantization.ZeroPointLength()
    if points not in (0, 1, len(scales)):
        raise _Unsound(f"{name} has {len(scales)} scales and {points} zero points")
    if len(scales) > 1:
        axis = quantization.QuantizedDimension()
        if not 0 <= axis < len(shape) or shape[axis] != len(scales):
            raise _Unsound(f"{name} of the shape {shape} has {len(scales)} scales on axis {axis}")


def _indices(what: str, indices: Any, count: int, *, least: int) -> None:
    numbers = [int(one) for one in np.atleast_1d(indices)] if np.size(indices) else []
    wrong = [one for one in numbers if not least <= one < count]
    if wrong:
        raise _Unsound(f"{what} name the tensor {wrong[0]}, and it has {count}")


def _count(number: int, size: int, what: str) -> int:
    """Return a length that the file can hold: four bytes for each."""
    if number > size // 4:
        raise _Unsound(f"it cannot hold {number:,} {what}")
    return number
