"""Outputs of a graph that no array of numbers holds, and how a user leaves outputs out."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .tensors import STRING

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto


def is_numeric(value: ValueInfoProto) -> bool:
    """Tell whether a value is a tensor of numbers, and no text, list or dictionary."""
    kind = value.type.WhichOneof("value")
    return kind in (None, "tensor_type") and value.type.tensor_type.elem_type != STRING


def not_numeric(model: ModelProto) -> list[str]:
    """Return the outputs that are no tensors of numbers: names of classes, lists, dictionaries."""
    return [value.name for value in model.graph.output if not is_numeric(value)]


def left_out_by(names: Sequence[str], path: str = "MODEL.onnx") -> str:
    """Return a command that writes a file without some of its outputs."""
    code = (
        f"import onnx; m = onnx.load({json.dumps(path)}); [m.graph.output.remove(x) "
        f"for x in [*m.graph.output] if x.name in {json.dumps(list(names))}]; "
        'onnx.save(m, "kept.onnx")'
    )
    # A name in a file of anybody's must not leave its place in a command that is copied.
    return f"python -c {shlex.quote(code)}"
