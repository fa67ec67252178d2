"""An ONNX graph as the handlers of its operators read it: nodes in plain Python."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Set
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from dsconvert.base.errors import InputError
from dsconvert.formats.onnx.graph import OnnxGraph, attributes, key
from dsconvert.formats.onnx.shapes import symbolic_shape
from dsconvert.formats.onnx.tensors import DOMAINS, numpy_type, stored_tensors

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto

ADDED = "dsconvert/"
"""How the names begin of what the import adds to a graph."""


@dataclass(frozen=True)
class Node:
    """One node.

    Attributes:
        proto: The node as it stands in the file.
        index: Its position in the original graph; negative for a node that the import added.
        op: The operator.
        domain: The operator's domain; empty for ONNX's own.
        name: Its name, or that of its first output.
        inputs: The names of its inputs; empty where an optional one is left out.
        outputs: The names of its outputs.
        attributes: Its attributes as Python values: strings as str, tensors as arrays.
        opset: The version of ONNX' operators that the model uses.
    """

    proto: NodeProto
    index: int
    op: str
    domain: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    opset: int

    def __str__(self) -> str:
        return f"{self.op} {self.name!r}"

    def has(self, index: int) -> bool:
        """Tell whether an optional input is given."""
        return index < len(self.inputs) and self.inputs[index] != ""

    def get(self, attribute: str, default: Any = None) -> Any:
        """Return an attribute, or the default."""
        return self.attributes.get(attribute, default)


@dataclass(frozen=True)
class GraphInput:
    """An input that the user feeds: its size is a number, a symbol's name, or None."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | str | None, ...]


@dataclass(frozen=True)
class Graph:
    """A model's main graph.

    Attributes:
        onnx: The graph, its weights in memory.
        nodes: Its nodes, in order.
        inputs: The inputs that carry data: initialisers listed among them (IR 3) are not.
    """

    onnx: OnnxGraph
    nodes: tuple[Node, ...]
    inputs: tuple[GraphInput, ...]

    @property
    def proto(self) -> ModelProto:
        """The model."""
        return self.onnx.model

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """The names of its outputs; one that is listed twice is given once."""
        return tuple(dict.fromkeys(self.onnx.outputs))

    @cached_property
    def tensors(self) -> dict[str, TensorProto]:
        """The stored tensors by name: initialisers, and those of Constant nodes."""
        return stored_tensors(self.proto)

    @property
    def changing(self) -> Set[str]:
        """The values that depend on what is in the inputs."""
        return self.onnx.changing

    @property
    def sized(self) -> Set[str]:
        """The values that depend on the sizes of the inputs, but not on what is in them."""
        return self.onnx.sized

    @cached_property
    def live(self) -> tuple[Node, ...]:
        """The nodes that depend on the data and on which an output depends."""
        live = {key(node) for node in self.onnx.live}
        return tuple(node for node in self.nodes if key(node.proto) in live)

    @cached_property
    def consumers(self) -> dict[str, tuple[Node, ...]]:
        """The live nodes that read each value."""
        found: dict[str, list[Node]] = defaultdict(list)
        for node in self.live:
            for name in dict.fromkeys(node.inputs):
                found[name].append(node)
        return {name: tuple(nodes) for name, nodes in found.items()}

    @cached_property
    def producers(self) -> dict[str, Node]:
        """The node that makes each value."""
        return {name: node for node in self.nodes for name in node.outputs if name}


def read_graph(model: ModelProto) -> Graph:
    """Read a model whose weights are in memory.

    Raises:
        InputError: If its inputs are not tensors of known rank.
    """
    graph = OnnxGraph(model)
    added = sum(node.name.startswith(ADDED) for node in graph.nodes)  # all at the start
    nodes = tuple(
        Node(
            proto=node,
            index=index - added,
            op=node.op_type,
            domain="" if node.domain in DOMAINS else node.domain,
            name=node.name or key(node) or node.op_type,
            inputs=tuple(node.input),
            outputs=tuple(node.output),
            attributes=attributes(node),
            opset=graph.opset,
        )
        for index, node in enumerate(graph.nodes)
    )
    return Graph(graph, nodes, tuple(map(_input, graph.inputs)))


def _input(value: ValueInfoProto) -> GraphInput:
    shape = symbolic_shape(value)
    if shape is None:
        raise InputError(
            f"the model's input {value.name!r} is no tensor with a known number of axes.",
            "Export the model with an example input, so that it says the input's shape.",
            code="input-without-rank",
        )
    dtype = numpy_type(value.type.tensor_type.elem_type)
    if dtype.kind in "OSU":
        raise InputError(
            f"the model's input {value.name!r} is text: only numbers can be imported.",
            code="text-input",
        )
    return GraphInput(value.name, dtype, shape)
