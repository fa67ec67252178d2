"""A rewritten ONNX model: the same but for the chosen Convs. Deciding happens elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from dsconvert.base.predictor import Array
from dsconvert.formats.onnx.constants import constant_of
from dsconvert.formats.onnx.graph import (
    OnnxGraph,
    all_names,
    fresh_name,
    key,
    with_inputs,
)
from dsconvert.formats.onnx.messages import copy_without_graph
from dsconvert.formats.onnx.tensors import tensor_from

from ...core.stages import Weights
from ...core.types import Factorization, Float, as_float
from .channel_affine import tail_after
from .classifier_head import head_at
from .emit import block_nodes
from .read import OnnxConvolution, main_convolutions

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto


def rebuild(
    graph: OnnxGraph, factors: Mapping[str, Factorization], weights: Mapping[str, Weights]
) -> ModelProto:
    """Return the rewritten model; the given one is left as it is.

    Everything else stays: inputs, outputs, names, opsets, IR version, metadata, other domains.
    A BatchNormalization that belongs to a rewritten Conv alone, or a Mul and an Add in its place,
    goes into its block.

    Args:
        graph: The model.
        factors: The block of each convolution, by name.
        weights: New weights by name, of these and of layers that keep their form.
    """
    return _Rebuild(graph, factors, weights).run()


class _Rebuild:
    def __init__(
        self,
        graph: OnnxGraph,
        factors: Mapping[str, Factorization],
        weights: Mapping[str, Weights],
    ) -> None:
        self.graph, self.factors, self.weights = graph, factors, weights
        self.convolutions = main_convolutions(graph)
        self.taken = set(all_names(graph.model.graph))
        self.added: list[TensorProto] = []
        self.absorbed: set[str] = set()
        """First outputs of nodes that went into blocks."""
        self.biases: dict[str, str] = {}
        """The new bias of each Add that belongs to a refitted MatMul, by the Add's output."""

    def run(self) -> ModelProto:
        nodes: list[NodeProto] = []
        for node in self.graph.nodes:
            if key(node) not in self.absorbed:
                nodes += self._in_place_of(node)
        return self._assembled(nodes)

    def _in_place_of(self, node: NodeProto) -> list[NodeProto]:
        """Return what stands in a node's place: itself, unless it has got new weights."""
        name, convolution = self.graph.names[key(node)], self.convolutions.get(key(node))
        if convolution is not None and name in self.factors:
            return self._block(convolution)
        if name in self.weights:
            weights = self.weights[name]
            return [
                self._head(node, weights) if convolution is None else self._refitted(node, weights)
            ]
        if key(node) in self.biases:
            matmul = next(x for x in node.input if x in self.graph.makers)
            return [with_inputs(node, [matmul, self.biases[key(node)]])]
        return [node]

    def _block(self, convolution: OnnxConvolution) -> list[NodeProto]:
        node, name = convolution.node, convolution.name
        factors = self.factors[name]
        bias, output = factors.bias, key(node)
        assert convolution.spec is not None, "only what has a geometry becomes a block"
        tail = tail_after(self.graph, node, convolution.spec.out_channels)
        if tail is not None:
            weights = self.weights.get(name)
            norm = weights.norm if weights is not None and weights.norm is not None else tail.norm
            bias = ((0.0 if bias is None else bias) - norm.mean) * norm.gain + tail.offset
            factors, output = factors.scaled(norm.gain), tail.output
            self.absorbed.update(map(key, tail.nodes))
        nodes, weights_of_nodes = block_nodes(
            node,
            name,
            output,
            factors,
            bias,
            self._type_of(node.input[1]),
            self.graph.opset,
            self._fresh,
        )
        self.added += weights_of_nodes
        return nodes

    def _refitted(self, node: NodeProto, weights: Weights) -> NodeProto:
        """Return a Conv of the same form with other weights."""
        kind = self._type_of(node.input[1])
        inputs = [node.input[0], self._new(node.input[1], _as_onnx(weights.kernel), kind)]
        if weights.bias is not None:
            base = node.input[2] if len(node.input) > 2 and node.input[2] else f"{key(node)}_bias"
            inputs.append(self._new(base, weights.bias, kind))
        return with_inputs(node, inputs)

    def _head(self, node: NodeProto, weights: Weights) -> NodeProto:
        """Return a last dense layer with other weights."""
        head = head_at(self.graph, node)
        assert head is not None, "what has new weights is a convolution or a head"
        kind = self._type_of(head.weights)
        kernel = weights.kernel[0, 0].T if head.transposed else weights.kernel[0, 0]
        bias = self._new(head.offset, as_float(weights.bias), kind)
        inputs = [node.input[0], self._new(head.weights, kernel, kind)]
        if head.adder is None:
            return with_inputs(node, [*inputs, bias])
        self.biases[key(head.adder)] = bias
        return with_inputs(node, inputs)

    # Names and tensors.

    def _new(self, base: str, array: Array | Float, kind: int) -> str:
        self.added.append(tensor_from(array, self._fresh(f"{base}_refitted"), kind))
        return str(self.added[-1].name)

    def _fresh(self, name: str) -> str:
        return fresh_name(name, self.taken)

    def _type_of(self, name: str) -> int:
        from onnx import helper

        if name in self.graph.initializers:
            return int(self.graph.initializers[name].data_type)
        value = constant_of(self.graph, name)
        assert value is not None, "weights are tensors"
        return int(helper.np_dtype_to_tensor_dtype(value.dtype))

    def _assembled(self, nodes: Sequence[NodeProto]) -> ModelProto:
        source = self.graph.model
        # What nobody reads any more goes; what nobody read before is none of our business.
        nodes, gone = self.graph.without_unread(nodes)
        model = copy_without_graph(source)
        graph = model.graph
        for field in ("name", "doc_string"):
            if source.graph.HasField(field):
                setattr(graph, field, getattr(source.graph, field))
        graph.metadata_props.extend(source.graph.metadata_props)
        graph.output.extend(source.graph.output)
        graph.sparse_initializer.extend(source.graph.sparse_initializer)
        graph.input.extend(
            x for x in source.graph.input if x.name not in gone & self.graph.initializers.keys()
        )
        for tensor in source.graph.initializer:
            if tensor.name not in gone:
                # Unlike extend(), which goes by way of a serialised copy.
                graph.initializer.add().CopyFrom(tensor)
        graph.node.extend(nodes)
        graph.initializer.extend(self.added)
        if model.ir_version < 4:  # where every initialiser had to be an input
            graph.input.extend(map(_value_info, self.added))
        made = {name for node in graph.node for name in node.output}
        gone |= self.graph.makers.keys() - made
        graph.value_info.extend(x for x in source.graph.value_info if x.name not in gone)
        graph.quantization_annotation.extend(
            x for x in source.graph.quantization_annotation if x.tensor_name not in gone
        )
        return model


def _as_onnx(kernel: Array | Float) -> Array:
    """(kh, kw, C, N) as (N, C, kh, kw)."""
    return np.asarray(kernel).transpose(3, 2, 0, 1)


def _value_info(tensor: TensorProto) -> object:
    from onnx import helper

    return helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
