"""What follows a convolution, belongs to it alone, and is affine per channel.

BatchNormalization, and a Mul and an Add by constants, which exporters make of it. Such a tail
vanishes into the pairs that replace the convolution: (y − mean)·gain + offset is a scale of the
last kernel and a bias.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dsconvert.base.predictor import Array
from dsconvert.formats.onnx.constants import constant_of
from dsconvert.formats.onnx.graph import OnnxGraph, attributes, is_op, key

from ...core.stages import Norm
from ...core.types import Float, as_float

if TYPE_CHECKING:
    from onnx import NodeProto


@dataclass(frozen=True)
class Tail:
    """An affine map per channel: y → (y − norm.mean) · norm.gain + offset.

    Attributes:
        nodes: The nodes that compute it, in order.
        norm: Its gain, mean and variance, each (N,).
        offset: (N,).
    """

    nodes: tuple[NodeProto, ...]
    norm: Norm
    offset: Float

    @property
    def output(self) -> str:
        """The value that it ends in."""
        return key(self.nodes[-1])


def tail_after(graph: OnnxGraph, node: NodeProto, channels: int) -> Tail | None:
    """Return the tail of a convolution with ``channels`` outputs, if it has one."""
    after = graph.only_reader(key(node))
    if after is None:
        return None
    if is_op(after, "BatchNormalization"):
        return _batch_norm(graph, node, after, channels)
    value, nodes = key(node), []
    gain, offset = np.ones(channels), np.zeros(channels)
    for kind in ("Mul", "Add"):
        after = graph.only_reader(value)
        if after is None or not is_op(after, kind):
            continue
        constant = _per_channel(graph, after, value, channels)
        if constant is None:
            break
        if kind == "Mul":
            gain = constant
        else:
            offset = constant
        nodes.append(after)
        value = key(after)
    if not nodes:
        return None
    return Tail(tuple(nodes), Norm(gain, np.zeros(channels), np.ones(channels)), offset)


def _batch_norm(graph: OnnxGraph, node: NodeProto, norm: NodeProto, channels: int) -> Tail | None:
    given = attributes(norm)
    trains = given.get("training_mode", 0) or len([name for name in norm.output if name]) > 1
    if trains or norm.input[0] != key(node) or not given.get("spatial", 1):
        return None
    values = [constant_of(graph, name) for name in norm.input[1:5]]
    if any(value is None or value.shape != (channels,) for value in values):
        return None
    gamma, offset, mean, variance = map(as_float, values)
    variance = variance + float(given.get("epsilon", 1e-5))
    gain = gamma / np.sqrt(variance)
    return Tail((norm,), Norm(gain, mean, variance), offset)


def _per_channel(graph: OnnxGraph, node: NodeProto, value: str, channels: int) -> Float | None:
    """Return the constant operand of a binary node as (N,), if it is one number per channel."""
    others = [name for name in node.input if name != value]
    if len(others) != 1 or len(node.input) != 2:
        return None
    constant: Array | None = constant_of(graph, others[0])
    if constant is None or attributes(node).get("broadcast", 0):  # before opset 7
        return None
    shape = (1,) * (4 - constant.ndim) + constant.shape if constant.ndim <= 4 else ()
    if shape not in ((1, channels, 1, 1), (1, 1, 1, 1)):
        return None
    return as_float(np.broadcast_to(constant.reshape(-1), (channels,)))
