"""How the parts of a split output become that output again, in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_MOST = 200
"""Characters of what an operator reads; of a tensor that several read each would write all."""
_LONG = "…"


@dataclass(frozen=True)
class CutOperator:
    """An operator of what was cut off.

    Attributes:
        kind: What it does, such as "Reshape"; its name behind it where that does not tell.
        reads: The tensors that it reads.
        setting: What else it needs, such as "axis=3".
    """

    kind: str
    reads: tuple[str, ...]
    setting: str = ""


def told_rebuilding(
    outputs: Mapping[str, str],
    step_of: Callable[[str], CutOperator | None],
    parts: Mapping[str, str],
) -> tuple[str, ...]:
    """Write each output as it is computed from the parts.

    Args:
        outputs: The names of the outputs that are gone, by tensor.
        step_of: Returns what makes a tensor; None for what is given, such as a constant.
        parts: The names of the parts, by tensor.

    Example:
        >>> steps = {"y": CutOperator("Concat", ("a", "b"), "axis=1")}
        >>> told_rebuilding({"y": "detections"}, steps.get, {"a": "boxes", "b": "scores"})
        ('detections = Concat(boxes, scores, axis=1)',)
    """
    known = dict(parts)

    def told(tensor: str) -> str:
        if tensor not in known:
            step = step_of(tensor)
            values = [] if step is None else [told(read) for read in step.reads if read]
            if step is None:
                known[tensor] = tensor
            elif _LONG in values or sum(map(len, values)) > _MOST:
                known[tensor] = _LONG
            else:
                inside = [*values, step.setting] if step.setting else values
                known[tensor] = f"{step.kind}({', '.join(inside)})"
        return known[tensor]

    whole = {name: told(tensor) for tensor, name in outputs.items()}
    return tuple(
        f"{name} is what the model's last layers make of them"
        if text == _LONG
        else f"{name} = {text}"
        for name, text in whole.items()
    )


def keras_step(
    operation: Any, reads: Sequence[str], rank: int, *, plain: bool = True
) -> CutOperator:
    """Describe a layer or operation of Keras.

    Args:
        operation: The layer or operation.
        reads: The tensors that it reads.
        rank: How many axes its result has.
        plain: Whether it reads nothing else, such as an array.
    """
    kind, read = type(operation).__name__, tuple(reads)
    if not plain:
        return CutOperator(f"{kind} {operation.name!r}", read)
    if kind == "Concatenate":
        return CutOperator(kind, read, f"axis={operation.axis % rank}")
    if kind == "Reshape" and hasattr(operation, "target_shape"):
        return CutOperator(kind, read, f"shape={_listed(['n', *operation.target_shape])}")
    if kind == "Reshape":
        return CutOperator(kind, read, f"shape={_listed(operation.newshape)}")
    if kind == "Permute":
        return CutOperator("Transpose", read, f"axes={_listed([0, *operation.dims])}")
    if kind == "Transpose":
        axes = operation.axes or range(rank)[::-1]
        return CutOperator(kind, read, f"axes={_listed(axes)}")
    return CutOperator(f"{kind} {operation.name!r}", read)


def onnx_step(
    kind: str,
    name: str,
    settings: Mapping[str, Any],
    reads: Sequence[str],
    shape: Sequence[int] | None,
) -> CutOperator:
    """Describe a node of an ONNX graph.

    Args:
        kind: Its operator.
        name: Its own.
        settings: Its attributes.
        reads: The tensors that it reads.
        shape: The constant that a Reshape reads; None where there is none.
    """
    read = tuple(reads)
    if kind == "Concat":
        return CutOperator(kind, read, f"axis={settings['axis']}")
    shape = settings.get("shape") if shape is None else shape  # an attribute before opset 5
    if kind == "Reshape" and shape is not None:
        first = ["n"] if shape[:1] == [0] and not settings.get("allowzero") else shape[:1]
        return CutOperator(kind, read, f"shape={_listed([*first, *shape[1:]])}")
    if kind == "Transpose":
        return CutOperator(
            kind, read, f"perm={_listed(settings['perm'])}" if "perm" in settings else ""
        )
    return CutOperator(f"{kind} {name!r}" if name else kind, read)


def _listed(sizes: Sequence[Any]) -> str:
    return f"({', '.join(str(size) for size in sizes)})"
