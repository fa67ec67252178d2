"""An ONNX model whose inputs left their sizes free, at fixed ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dsconvert.base.predictor import Shape

from .checking import Refused
from .graph import OnnxGraph
from .session import sentence, session
from .shapes import inferred

if TYPE_CHECKING:
    from onnx import ModelProto


def fix_sizes(model: ModelProto, folder: Path | None, shapes: Sequence[Shape]) -> None:
    """Fix the sizes of a model's inputs, in place, and run it once to see that it takes them.

    Args:
        model: The model.
        folder: Where its external data are.
        shapes: One per input that is fed, batch axis first; None where a size stays free.

    Raises:
        Refused: If the model does not run at these sizes, with ONNX Runtime's sentence.
    """
    for value, shape in zip(OnnxGraph(model, folder).inputs, shapes, strict=True):
        for dim, size in zip(value.type.tensor_type.shape.dim, shape, strict=True):
            if size is not None:
                dim.dim_value = size
    declared = {value.name: len(value.type.tensor_type.shape.dim) for value in model.graph.output}
    for value in model.graph.output:  # what says "height" would say so still
        value.type.tensor_type.ClearField("shape")
    del model.graph.value_info[:]
    _run(model, folder)
    try:
        known = inferred(model, folder)
    except Exception as error:  # InferenceError, or what the parser raises
        raise Refused(f"onnx: {sentence(error)}") from error
    for value in model.graph.output:
        shape = known[value.name][0] if value.name in known else (None,) * declared[value.name]
        dims = value.type.tensor_type.shape.dim
        for size in shape:
            dim = dims.add()
            if size is not None:
                dim.dim_value = size


def _run(model: ModelProto, folder: Path | None) -> None:
    """Run on zeros: shapes that do not go together are found when they meet."""
    try:
        running = session(model, folder, optimization="none")
        fed: dict[str, np.ndarray[Any, Any]] = {
            one.name: np.zeros(
                [size if isinstance(size, int) else 1 for size in one.shape], _KINDS[one.type]
            )
            for one in running.get_inputs()
            if one.type in _KINDS
        }
        if len(fed) == len(running.get_inputs()):
            running.run(None, fed)
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        raise Refused(f"ONNX Runtime: {sentence(error)}") from error


_KINDS = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(bool)": np.bool_,
}
