"""Ranges of what a minimum, a maximum or a choice gives, as wide as what others read of its inputs.

TensorFlow's quantizer gives the inputs of these operators the range of their output: of a tensor
that is read elsewhere too, everything beyond is cut off there.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from dsconvert.base.errors import require

_NARROWING = ("MINIMUM", "MAXIMUM", "SELECT", "SELECT_V2")
"""Operators that may leave values out, and have one range for inputs and output."""
_MOVING = (
    "RESHAPE", "TRANSPOSE", "SQUEEZE", "EXPAND_DIMS", "SLICE", "STRIDED_SLICE", "SPLIT", "SPLIT_V",
    "GATHER", "GATHER_ND", "CONCATENATION", "PACK", "UNPACK", "PAD", "PADV2", "MIRROR_PAD", "TILE",
    "BROADCAST_TO", "MAX_POOL_2D", "REVERSE_V2", "SPACE_TO_DEPTH", "DEPTH_TO_SPACE",
    "SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR",
)  # fmt: skip
"""Others with one range for inputs and output."""


def shared_ranges(calibrated: bytes) -> bytes:
    """Return a calibrated .tflite model in which no other reader of a tensor loses values.

    Args:
        calibrated: The model in float, with the ranges of all tensors that will have integers.
    """
    schema = require("ai_edge_litert.schema_py_generated", "keras", "to write .tflite files")
    content = bytearray(calibrated)
    model = schema.Model.GetRootAs(content)
    changed = False
    for i in range(model.SubgraphsLength()):
        changed |= _widen(schema, model, model.Subgraphs(i))
    return bytes(content) if changed else calibrated


def _widen(schema: Any, model: Any, graph: Any) -> bool:
    """Widen the ranges of one graph where they lie; whether any was."""
    codes = [model.OperatorCodes(i) for i in range(model.OperatorCodesLength())]
    kinds = [max(code.BuiltinCode(), code.DeprecatedBuiltinCode()) for code in codes]
    narrowing = {getattr(schema.BuiltinOperator, name) for name in _NARROWING}
    keeping = narrowing | {getattr(schema.BuiltinOperator, name) for name in _MOVING}
    operators = [graph.Operators(i) for i in range(graph.OperatorsLength())]
    readers = Counter(int(graph.Outputs(i)) for i in range(graph.OutputsLength()))
    for op in operators:
        readers.update({int(op.Inputs(i)) for i in range(op.InputsLength())})
    needed: dict[int, tuple[float, float]] = {}
    changed = False
    for op in operators:  # what an operator reads stands before it
        kind = kinds[op.OpcodeIndex()]
        if kind not in keeping:
            continue
        ends = []
        for tensor in (int(op.Inputs(i)) for i in range(op.InputsLength())):
            found = _range(graph, tensor)
            if readers[tensor] > 1 and found is not None:
                ends.append((float(found[0][0]), float(found[1][0])))
            if tensor in needed:
                ends.append(needed[tensor])
        if not ends:
            continue
        whole = min(low for low, _ in ends), max(high for _, high in ends)
        for output in (int(op.Outputs(i)) for i in range(op.OutputsLength())):
            needed[output] = whole
            made = _range(graph, output)
            if kind in narrowing and made is not None:
                low, high = made
                changed |= bool(low[0] > whole[0] or high[0] < whole[1])
                low[:], high[:] = min(low[0], whole[0]), max(high[0], whole[1])
    return changed


def _range(graph: Any, tensor: int) -> tuple[Any, Any] | None:
    """Return where the least and the greatest value of a tensor lie; None where it has none."""
    found = None if tensor < 0 else graph.Tensors(tensor).Quantization()
    if found is None or found.MinLength() != 1 or found.MaxLength() != 1:
        return None
    return found.MinAsNumpy(), found.MaxAsNumpy()
