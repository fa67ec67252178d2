"""Integers of a file that are read with another scale, or zero point, than they are written with.

A zero point that is off by eight moves what a layer gives by eight steps of 255. The outputs of a
poor file hide that among errors of rounding, the file does not: what quantizes a value and what
reads it name different numbers. Whether that is wrong is told by undoing it. With the numbers that
it is written with, the outputs must come nearer to the reference's.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dsconvert.base.errors import InputError, require
from dsconvert.base.fidelity import OutputFidelity
from dsconvert.base.output_fidelity import Finding

if TYPE_CHECKING:
    from onnx import NodeProto

    from dsconvert.formats.onnx.graph import OnnxGraph

_NEARER = 0.02
"""Share of an output's error that undoing must take away."""
_HANDED_ON = ("Identity", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "MaxPool")
_COPIED = ("RESHAPE", "SQUEEZE", "EXPAND_DIMS", "TRANSPOSE", "SLICE", "STRIDED_SLICE")
"""Operators of TFLite that copy integers, whatever scales their tensors name."""


def find(
    path: Path,
    outputs: Sequence[OutputFidelity],
    compared: Callable[[Path], Sequence[OutputFidelity]],
) -> tuple[Finding, ...]:
    """Find integers that are read otherwise than they are written.

    Args:
        path: An .onnx or .tflite file.
        outputs: How close its outputs are to the reference's.
        compared: Tells the same of another file.
    """
    with tempfile.TemporaryDirectory() as folder:
        undone = Path(folder) / path.name
        where = _undo_tflite(path, undone) if path.suffix == ".tflite" else _undo_onnx(path, undone)
        if not where:
            return ()
        try:
            nearer = compared(undone)
        except (InputError, ValueError):
            return ()
    gains = [_gain(*pair) for pair in zip(outputs, nearer, strict=True)]
    best = int(np.argmax(gains))
    if gains[best] < _NEARER:
        return ()
    name = outputs[best].name
    more = f" (and of {len(where) - 1} more)" if len(where) > 1 else ""
    text = (
        f"{name}: the integers of {where[0]}{more} are read with another scale or zero point than "
        f"they are written with; undoing it takes away {gains[best]:.0%} of the error"
    )
    figures = {"explained": gains[best], "places": float(len(where))}
    return (
        Finding(
            code="read-otherwise",
            severity="failure",
            output=name,
            channels=(),
            figures=figures,
            text=text,
        ),
    )


def _gain(before: OutputFidelity, after: OutputFidelity) -> float:
    """Return the share of the error power that is gone."""
    if not before.relative_error or after.relative_error is None:
        return 0.0
    return 1 - (after.relative_error / before.relative_error) ** 2


def _undo_onnx(path: Path, undone: Path) -> list[str]:
    """Write the file with what DequantizeLinear nodes read made what is written; name the nodes."""
    from dsconvert.formats.onnx.graph import OnnxGraph, key
    from dsconvert.formats.onnx.open import load
    from dsconvert.formats.onnx.save import save

    model = load(path)
    graph = OnnxGraph(model, path.parent)
    where = []
    for node in graph.nodes:
        writer = _writer(graph, node) if node.op_type == "DequantizeLinear" else None
        if writer is not None and _numbers(graph, writer) != _numbers(graph, node):
            del node.input[1:]
            node.input.extend(writer.input[1:])
            where.append(node.name or key(node))
    if where:
        save(model, path.parent, undone, overwrite=True, check=False)
    return where


def _writer(graph: OnnxGraph, node: NodeProto) -> NodeProto | None:
    """Return the QuantizeLinear whose integers a node reads."""
    name = node.input[0]
    while (made := graph.makers.get(name)) is not None and made.op_type in _HANDED_ON:
        name = made.input[0]
    return made if made is not None and made.op_type == "QuantizeLinear" else None


def _numbers(graph: OnnxGraph, node: NodeProto) -> tuple[Any, ...] | None:
    """Return scales and zero points of a node; None where they are computed from data."""
    from dsconvert.formats.onnx.constants import constant_of

    values: list[Any] = [constant_of(graph, name) for name in node.input[1:] if name]
    if any(value is None for value in values):
        return None
    scale, zero = [*values, np.zeros((), np.uint8)][:2]
    return np.ravel(scale).tolist(), np.ravel(zero).tolist()


def _undo_tflite(path: Path, undone: Path) -> list[str]:
    """Write the file with equal numbers on both sides of what copies integers; name the tensors."""
    schema = require("ai_edge_litert.schema_py_generated", "keras", "to read .tflite files")
    content = bytearray(path.read_bytes())
    model = schema.Model.GetRootAs(content)
    names = {code: name for name, code in vars(schema.BuiltinOperator).items()}
    graph = model.Subgraphs(0)
    where = []
    for i in range(graph.OperatorsLength()):
        operator = graph.Operators(i)
        code = model.OperatorCodes(operator.OpcodeIndex())
        kind = names.get(max(code.BuiltinCode(), code.DeprecatedBuiltinCode()))
        if kind not in _COPIED:
            continue
        read, written = (graph.Tensors(int(t)) for t in (operator.Inputs(0), operator.Outputs(0)))
        sides = [_views(tensor) for tensor in (read, written)]
        if None in sides or read.Type() != written.Type():
            continue
        if any(len(a) != len(b) for a, b in zip(*sides, strict=True)):
            continue
        if any((a != b).any() for a, b in zip(*sides, strict=True)):
            for a, b in zip(*sides, strict=True):
                b[:] = a
            where.append(written.Name().decode())
    if where:
        undone.write_bytes(content)
    return where


def _views(tensor: Any) -> tuple[Any, Any] | None:
    """Return scales and zero points of a tensor inside the file; None where it has none."""
    found = tensor.Quantization()
    if found is None or not found.ScaleLength() or not found.ZeroPointLength():
        return None
    return found.ScaleAsNumpy(), found.ZeroPointAsNumpy()
