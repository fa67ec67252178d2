"""Element types and sizes of an ONNX graph's values as ONNX Runtime finds them.

ONNX's own inference knows nothing of operators that are not ONNX's, nor of what is computed from
their results.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from dsconvert.base.errors import require

from .checking import light_copy
from .session import session
from .shapes import inferred_model
from .tensors import DOMAINS

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto


def runtime_types(
    model: ModelProto, folder: Path | None, names: Collection[str]
) -> dict[str, ValueInfoProto]:
    """Return the types and sizes of some values of the main graph, by their names.

    Args:
        model: The model; it is not run, and its large weights are not read.
        folder: Where its external data are.
        names: Of the values.

    Returns:
        Those that ONNX Runtime knows a tensor's type of; none where it refuses the model.
    """
    onnx = require("onnx", "onnx", "to read .onnx files")
    try:
        light = light_copy(model, folder)
        told = {value.name for value in light.graph.output}
        light.graph.output.extend(onnx.ValueInfoProto(name=one) for one in sorted({*names} - told))
        outputs = session(light, folder, optimization="none").get_outputs()
    except Exception:  # what is wrong with the model is said when it is checked
        return {}
    found = {}
    for value in outputs:
        kind = value.type.removeprefix("tensor(").removesuffix(")").upper()
        if value.name in names and hasattr(onnx.TensorProto, kind):
            number = getattr(onnx.TensorProto, kind)
            sizes = value.shape or None  # it says [] of a single number and of an unknown rank
            found[value.name] = onnx.helper.make_tensor_value_info(value.name, number, sizes)
    return found


def declare_inner_types(model: ModelProto, folder: Path | None) -> bool:
    """Declare the types of inner values that ONNX's own inference does not find.

    Args:
        model: The model, which is changed.
        folder: Where its external data are.

    Returns:
        Whether there were any.
    """
    graph = model.graph
    if all(node.domain in DOMAINS for node in graph.node):
        return False
    try:
        light = inferred_model(model, folder).graph
    except Exception:  # what is wrong with the model is said when it is checked
        return False
    known = {value.name for value in light.value_info if value.type.tensor_type.elem_type}
    known.update(value.name for value in light.output)
    wanted = {name for node in graph.node for name in node.output if name} - known
    found = runtime_types(model, folder, wanted) if wanted else {}
    kept = [value for value in graph.value_info if value.name not in found]
    del graph.value_info[:]
    graph.value_info.extend([*kept, *found.values()])
    return bool(found)
