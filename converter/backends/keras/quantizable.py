"""Which layers an int8 file can be trained for, and what they are to the converter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dsconvert.base.errors import InputError

from .graph import Step, keras_module


def activation_name(activation: Any) -> str:
    """Return an activation function's name; empty for none."""
    return str(getattr(activation, "__name__", "")) if activation is not None else ""


def has_kernel(operation: Any) -> bool:
    """Tell whether a layer has weights that an int8 file stores per output channel."""
    layers = keras_module().layers
    return type(operation) in (layers.Conv2D, layers.DepthwiseConv2D, layers.Dense)


def is_relu(operation: Any) -> bool:
    """Tell whether an operation is a ReLU that a .tflite file fuses into what is before it."""
    if type(operation).__name__ == "Activation":
        return activation_name(operation.activation) in ("relu", "relu6")
    if type(operation).__name__ == "ReLU":
        slope = float(getattr(operation, "negative_slope", 0) or 0)
        return slope == 0 and not operation.threshold and operation.max_value in (None, 6, 6.0)
    return type(operation).__name__ in ("Relu", "Relu6")


def check_quantizable(steps: Sequence[Step]) -> None:
    """Refuse layers whose weights the file rounds in a way that is not computed here.

    Raises:
        InputError: If there are such.
    """
    known = keras_module().layers.BatchNormalization
    others = sorted(
        {
            f"{step.operation.name} ({type(step.operation).__name__})"
            for step in steps
            if getattr(step.operation, "trainable_weights", ())
            and not has_kernel(step.operation)
            and type(step.operation) is not known
        }
    )
    others += [
        f"{step.operation.name} (channels first)"
        for step in steps
        if getattr(step.operation, "data_format", "") == "channels_first"
    ]
    if others:
        raise InputError(
            f"cannot train for int8: {', '.join(others)}. Known are Conv2D, DepthwiseConv2D, Dense "
            "and BatchNormalization, channels last.",
            "Leave --quantize of finetune, or --refine-int8 of export, out.",
            code="not-quantizable",
        )
