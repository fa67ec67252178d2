"""What an .onnx file is made of, by ONNX's shape inference; its weights are not read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from dsconvert.base.predictor import Shape

from ..stats import Kind, ModelStats, Op, kind_of_kernel, largest, total
from .constants import constant_shape
from .graph import OnnxGraph, attributes, key
from .nodes import inner_graphs
from .open import load
from .shapes import inferred
from .tensors import size_in_bytes, tensors_of

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

_DOMAINS = ("", "ai.onnx", "com.microsoft")
_CONVOLUTIONS = {"Conv": 1, "FusedConv": 1, "ConvInteger": 1, "QLinearConv": 3}
_PRODUCTS = {"MatMul": 1, "FusedMatMul": 1, "MatMulInteger": 1, "QLinearMatMul": 3}
"""Where each has its second factor."""
_RENAMING = ("Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Dropout")
_UNCOUNTED = ("LSTM", "GRU", "RNN", "Einsum", "DeformConv", "Attention", "MultiHeadAttention")


def read_onnx(path: Path, shapes: Sequence[Shape]) -> ModelStats:
    """Read a file; see `ModelStats`."""
    model = load(path)
    values = inferred(model, path.parent, shapes, computed=True)
    graph = _Graph(OnnxGraph(model, path.parent), values)
    ops = tuple(graph.op(node) for node in graph.onnx.depending_on_data)
    return ModelStats(ops, total(ops), _weights(model), largest(ops))


def _weights(model: ModelProto) -> int:
    """Bytes of all tensors that the file holds, external ones included."""
    return sum(size_in_bytes(tensor) for tensor, _ in tensors_of(model))


@dataclass
class _Graph:
    """The main graph with what shape inference found."""

    onnx: OnnxGraph
    values: dict[str, tuple[Shape, int]]

    def op(self, node: NodeProto) -> Op:
        """Describe a node."""
        names = dict.fromkeys(n for n in (*node.input, *node.output) if n in self.onnx.changing)
        moved = 0 if node.op_type in _RENAMING else self._bytes(names)
        kind, macs = self._work(node)
        return Op(self.onnx.names[key(node)], node.op_type, kind, macs, moved)

    def _work(self, node: NodeProto) -> tuple[Kind, int | str]:
        """The kind and the MACs: each weight of a convolution is used once per output position."""
        type_ = node.op_type
        if node.domain not in _DOMAINS or type_ in _UNCOUNTED or any(inner_graphs(node)):
            return "other", f"unavailable: the MACs of {type_} are not counted"
        if type_ in _CONVOLUTIONS or type_ == "ConvTranspose":
            kernel = self._shape(node.input[_CONVOLUTIONS.get(type_, 1)])
            transposed = type_ == "ConvTranspose"
            at = self._shape(node.input[0] if transposed else node.output[0])
            if kernel is None or at is None:
                return "convolution", self._unknown(node)
            groups = int(attributes(node).get("group", 1))
            macs = prod(kernel) * prod((at[0], *at[2:]))
            if transposed:
                return "convolution", macs
            return kind_of_kernel(prod(kernel[2:]), kernel[1], groups), macs
        if type_ == "Gemm":
            first, out = self._shape(node.input[0]), self._shape(node.output[0])
            if first is None or out is None:
                return "dense", self._unknown(node)
            inner = first[0 if attributes(node).get("transA") else 1]
            return "dense", prod(out) * inner
        if type_ in _PRODUCTS:
            first, out = self._shape(node.input[0]), self._shape(node.output[0])
            if first is None or out is None:
                return "dense", self._unknown(node)
            return "dense", prod(out) * first[-2 if attributes(node).get("transA") else -1]
        return "other", 0

    def _unknown(self, node: NodeProto) -> str:
        return f"unavailable: shape inference gives no shapes at {self.onnx.names[key(node)]}"

    def _shape(self, name: str) -> tuple[int, ...] | None:
        found = self.values.get(name)
        if found is None:
            return constant_shape(self.onnx, name)
        return None if None in found[0] else tuple(size or 0 for size in found[0])

    def _bytes(self, names: Sequence[str] | dict[str, None]) -> int | str:
        from onnx import TensorProto

        count = 0
        for name in names:
            shape = self._shape(name)
            if shape is None:
                return f"unavailable: shape inference gives no shape of {name}"
            count += size_in_bytes(TensorProto(dims=shape, data_type=self.values[name][1]))
        return count
