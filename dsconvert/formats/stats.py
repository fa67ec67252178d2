"""Counts of a model file that hold for every format: operators, MACs, bytes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Kind = Literal["convolution", "depthwise", "pointwise", "dense", "other"]
"""A 1×1 convolution is pointwise; one of a channel per group is depthwise; products of matrices,
of two activations too, are dense."""


@dataclass(frozen=True)
class Op:
    """One operator of a file.

    Attributes:
        name: As the file calls it: an .onnx node's name, a .tflite operator's first output.
        type: As the format calls it, e.g. "DEPTHWISE_CONV_2D" or "Conv".
        kind: What it is, whatever the format.
        macs: Multiply-accumulates of one invocation; a text says why they are not known.
        bytes: Of the activations that it reads and writes; a text says why they are not known.
    """

    name: str
    type: str
    kind: Kind = "other"
    macs: int | str = 0
    bytes: int | str = 0


@dataclass(frozen=True)
class ModelStats:
    """What one invocation of a file computes and needs; a text says why a figure is not known.

    Attributes:
        ops: In the order of the file.
        macs: Multiply-accumulates of convolutions, dense layers and products of matrices. Biases
            and activations are not counted, as in `dsconvert.converter.core.fitting.cost`.
        weight_bytes: Of all constants, as stored.
        activation_bytes: The largest sum, over the operators, of the activations that one reads
            and writes, as the file types them: no runtime that runs one operator after the other
            needs less for activations. Operators that only rename their input do not count.
    """

    ops: tuple[Op, ...]
    macs: int | str
    weight_bytes: int | str
    activation_bytes: int | str


def total(ops: Iterable[Op]) -> int | str:
    """Return the MACs of all operators, or the first reason why one's are not known."""
    macs = 0
    for op in ops:
        if isinstance(op.macs, str):
            return op.macs
        macs += op.macs
    return macs


def largest(ops: Iterable[Op]) -> int | str:
    """Return the most bytes of one operator, or the first reason why one's are not known."""
    most = 0
    for op in ops:
        if isinstance(op.bytes, str):
            return op.bytes
        most = max(most, op.bytes)
    return most


def kind_of_kernel(taps: int, per_group: int, groups: int) -> Kind:
    """Return what a convolution is by its kernel.

    Args:
        taps: The product of the kernel's sizes.
        per_group: Input channels per group.
        groups: How many there are.
    """
    if per_group == 1 and groups > 1:
        return "depthwise"
    return "pointwise" if taps == 1 and groups == 1 else "convolution"
