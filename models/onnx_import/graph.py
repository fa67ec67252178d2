"""An ONNX graph as plain Python: nodes, weights, and which values depend on the data."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from dsconvert.base.errors import InputError, require
from dsconvert.base.predictor import Array

DEFAULT_DOMAINS = ("", "ai.onnx")
ADDED = "dsconvert/"
"""How the names begin of what the import adds to a graph."""
_SIZES = ("Shape", "Size")


@dataclass(frozen=True)
class Node:
    """One node.

    Attributes:
        index: Its position in the original graph; negative for a node that the import added.
        op: The operator.
        domain: The operator's domain; empty for ONNX's own.
        name: Its name, or that of its first output.
        inputs: The names of its inputs; empty where an optional one is left out.
        outputs: The names of its outputs.
        attributes: Its attributes as Python values: strings as str, tensors as arrays.
        opset: The version of ONNX' operators that the model uses.
    """

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
        """Whether an optional input is given."""
        return index < len(self.inputs) and self.inputs[index] != ""

    def get(self, attribute: str, default: Any = None) -> Any:
        """An attribute, or the default."""
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
        proto: The model, its weights in memory.
        nodes: Its nodes, in order.
        inputs: The inputs that carry data: initialisers listed among them (IR 3) are not.
        outputs: The names of its outputs.
        opset: The version of ONNX' own operators.
    """

    proto: Any
    nodes: tuple[Node, ...]
    inputs: tuple[GraphInput, ...]
    outputs: tuple[str, ...]
    opset: int

    @cached_property
    def initializers(self) -> dict[str, Any]:
        """The stored tensors by name: initialisers, and those of Constant nodes."""
        stored = {tensor.name: tensor for tensor in self.proto.graph.initializer}
        for node in self.proto.graph.node:
            if node.op_type == "Constant" and node.domain in DEFAULT_DOMAINS:
                stored |= {n: a.t for n in node.output for a in node.attribute if a.name == "value"}
        return stored

    @cached_property
    def constants(self) -> dict[str, Array]:
        """The values that stand in the file: initialisers and Constant nodes."""
        to_array = require("onnx.numpy_helper", "onnx", "to read .onnx files").to_array
        values = {name: to_array(tensor) for name, tensor in self.initializers.items()}
        for node in self.nodes:
            if node.op != "Constant" or node.outputs[0] in values:
                continue
            for name, dtype in (
                ("value_float", np.float32),
                ("value_floats", np.float32),
                ("value_int", np.int64),
                ("value_ints", np.int64),
            ):
                if name in node.attributes:
                    values[node.outputs[0]] = np.asarray(node.attributes[name], dtype)
        return values

    @cached_property
    def sized(self) -> frozenset[str]:
        """The values that depend on the sizes of the inputs, but not on what is in them."""
        return self._dependence[0]

    @cached_property
    def static(self) -> frozenset[str]:
        """The values that do not depend on what is in the inputs, those of `sized` included."""
        return self._dependence[1]

    @cached_property
    def _dependence(self) -> tuple[frozenset[str], frozenset[str]]:
        static = {tensor.name for tensor in self.proto.graph.initializer} | {""}
        static |= {tensor.values.name for tensor in self.proto.graph.sparse_initializer}
        sized: set[str] = set()
        for node in self.nodes:
            measures = node.op in _SIZES and node.domain in DEFAULT_DOMAINS
            if node.op.startswith(("Random", "Bernoulli", "Multinomial")):
                continue  # not the same twice: nothing to be folded
            if node.op in ("If", "Loop", "Scan") and not measures:
                continue  # their bodies see values that are not among their inputs
            # CastLike reads the type of its second input, not the values.
            read = node.inputs[:1] if node.op == "CastLike" else node.inputs
            if measures or all(name in static for name in read):
                static.update(node.outputs)
                if measures or any(name in sized for name in read):
                    sized.update(node.outputs)
        return frozenset(sized), frozenset(static)

    @cached_property
    def live(self) -> tuple[Node, ...]:
        """The nodes that depend on the data and on which an output depends."""
        needed = set(self.outputs)
        kept = []
        for node in reversed(self.nodes):
            if any(name in needed for name in node.outputs if name) and not all(
                name in self.static for name in node.outputs
            ):
                kept.append(node)
                needed.update(name for name in node.inputs if name)
        return tuple(reversed(kept))

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


def read_graph(proto: Any) -> Graph:
    """Read a model whose weights are in memory.

    Raises:
        InputError: If its inputs are not tensors of known rank.
    """
    helper = require("onnx", "onnx", "to read .onnx files").helper
    opset = max((x.version for x in proto.opset_import if x.domain in DEFAULT_DOMAINS), default=1)
    added = sum(node.name.startswith(ADDED) for node in proto.graph.node)  # all at the start
    nodes = tuple(
        Node(
            index=index - added,
            op=node.op_type,
            domain="" if node.domain in DEFAULT_DOMAINS else node.domain,
            name=node.name or next((name for name in node.output if name), node.op_type),
            inputs=tuple(node.input),
            outputs=tuple(node.output),
            attributes={a.name: _python(helper.get_attribute_value(a)) for a in node.attribute},
            opset=opset,
        )
        for index, node in enumerate(proto.graph.node)
    )
    stored = {tensor.name for tensor in proto.graph.initializer}
    return Graph(
        proto=proto,
        nodes=nodes,
        inputs=tuple(_input(x) for x in proto.graph.input if x.name not in stored),
        outputs=tuple(value.name for value in proto.graph.output),
        opset=opset,
    )


def _input(value: Any) -> GraphInput:
    helper = require("onnx", "onnx", "to read .onnx files").helper
    tensor = value.type.tensor_type
    if value.type.WhichOneof("value") != "tensor_type" or not tensor.HasField("shape"):
        raise InputError(
            f"the model's input {value.name!r} is no tensor with a known number of axes.",
            "Export the model with an example input, so that it says the input's shape.",
        )
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    if dtype.kind in "OSU":
        raise InputError(f"the model's input {value.name!r} is text: only numbers can be imported.")
    sizes = tuple(
        size.dim_value if size.HasField("dim_value") else (size.dim_param or None)
        for size in tensor.shape.dim
    )
    return GraphInput(value.name, dtype, sizes)


def _python(value: Any) -> Any:
    """An attribute's value in Python's and NumPy's own types."""
    onnx = require("onnx", "onnx", "to read .onnx files")
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, onnx.TensorProto):
        return onnx.numpy_helper.to_array(value)
    if isinstance(value, list | tuple) or type(value).__name__.startswith("Repeated"):
        return tuple(_python(x) for x in value)
    return value
