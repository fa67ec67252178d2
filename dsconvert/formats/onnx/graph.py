"""An ONNX graph as a network: what makes a value, what reads it, what it depends on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dsconvert.base.predictor import Array, Shape

from .messages import copied
from .nodes import inner_graphs
from .shapes import inferred
from .tensors import DOMAINS, array_of, is_external, numpy_type

if TYPE_CHECKING:
    from onnx import (
        GraphProto,
        ModelProto,
        NodeProto,
        SparseTensorProto,
        TensorProto,
        ValueInfoProto,
    )

_RANDOM = ("Random", "Bernoulli", "Multinomial")


@dataclass(frozen=True)
class OnnxGraph:
    """A view of a model's main graph, which it does not change.

    Attributes:
        model: The model.
        folder: Where its external data are.
    """

    model: ModelProto
    folder: Path | None = None

    @property
    def opset(self) -> int:
        """The version of ONNX's own operators; 1 where none is named."""
        versions = [x.version for x in self.model.opset_import if x.domain in DOMAINS]
        return int(max(versions, default=1))

    @cached_property
    def nodes(self) -> tuple[NodeProto, ...]:
        """The nodes of the main graph, in its order."""
        return tuple(self.model.graph.node)

    @cached_property
    def nodes_without_constants(self) -> tuple[NodeProto, ...]:
        """All nodes but the Constant ones."""
        return tuple(node for node in self.nodes if not is_op(node, "Constant"))

    @cached_property
    def initializers(self) -> Mapping[str, TensorProto]:
        """By name."""
        return {tensor.name: tensor for tensor in self.model.graph.initializer}

    @cached_property
    def constants(self) -> Mapping[str, NodeProto]:
        """Constant nodes by the name of their output."""
        return {node.output[0]: node for node in self.nodes if is_op(node, "Constant")}

    @cached_property
    def sparse(self) -> Mapping[str, SparseTensorProto]:
        """Sparse initialisers by name."""
        return {tensor.values.name: tensor for tensor in self.model.graph.sparse_initializer}

    @cached_property
    def stored(self) -> Set[str]:
        """Names of all values that the model holds."""
        return self.initializers.keys() | self.constants.keys() | self.sparse.keys()

    @cached_property
    def inputs(self) -> list[ValueInfoProto]:
        """The graph's inputs that are no initialisers."""
        return [x for x in self.model.graph.input if x.name not in self.stored]

    @cached_property
    def input_types(self) -> dict[str, np.dtype[Any]]:
        """The element type of each of `inputs`, by name."""
        return {x.name: numpy_type(x.type.tensor_type.elem_type) for x in self.inputs}

    @cached_property
    def outputs(self) -> list[str]:
        """Names of the graph's outputs."""
        return [x.name for x in self.model.graph.output]

    @cached_property
    def makers(self) -> Mapping[str, NodeProto]:
        """The node of the main graph that makes each value."""
        return {name: node for node in self.nodes for name in node.output if name}

    @cached_property
    def readers(self) -> Mapping[str, list[NodeProto]]:
        """The nodes of the main graph that read each value, inside their inner graphs too."""
        readers: dict[str, list[NodeProto]] = {}
        for node in self.nodes:
            for name in reads_of(node):
                readers.setdefault(name, []).append(node)
        return readers

    @cached_property
    def shapes(self) -> Mapping[str, Shape]:
        """The shapes that shape inference finds; None where a size is free."""
        try:
            found = inferred(self.model, self.folder)
        except Exception:  # it helps where it can; nothing depends on it
            return {}
        return {name: shape for name, (shape, _) in found.items()}

    def only_reader(self, name: str) -> NodeProto | None:
        """Return the one node that reads a value, if nothing else does and it is no output."""
        readers = self.readers.get(name, [])
        alone = len(readers) == 1 and name not in self.outputs
        return readers[0] if alone and list(readers[0].input).count(name) == 1 else None

    @cached_property
    def names(self) -> Mapping[str, str]:
        """Return what each node is called, by its first output.

        That is its own name, or its output's where it has none or another node has the same. No
        two nodes are called the same.
        """
        count = Counter(node.name for node in self.nodes)
        own = {key(node): node.name for node in self.nodes if node.name and count[node.name] == 1}
        taken = set(own.values())
        firsts = map(key, self.nodes)
        return {first: own.get(first) or fresh_name(first, taken) for first in firsts}

    @property
    def depending_on_data(self) -> tuple[NodeProto, ...]:
        """The nodes whose results depend on the inputs' values, and not only on their shapes."""
        return self._dependence.nodes

    @property
    def changing(self) -> Set[str]:
        """The values that depend on the inputs' values; of random operators too."""
        return self._dependence.changing

    @property
    def sized(self) -> Set[str]:
        """The values that depend on the inputs' sizes or types, but not on what is in them."""
        return self._dependence.sized

    @property
    def fixed(self) -> Set[str]:
        """The values that depend on nothing but what the model holds."""
        return self._dependence.fixed

    @cached_property
    def folded(self) -> dict[str, Array | None]:
        """Return what `constant_of` has computed of this graph."""
        return {}

    @cached_property
    def sizes_found(self) -> list[dict[str, Array]]:
        """Return what `known_sizes` has found in this graph; empty before."""
        return []

    @cached_property
    def finite(self) -> dict[str, bool]:
        """Return what `is_finite` has found in this graph."""
        return {}

    @cached_property
    def _dependence(self) -> _Dependence:
        found = _Dependence((), {x.name for x in self.inputs}, set(), set(self.stored))
        nodes = []
        for node in self.nodes:
            made = [name for name in node.output if name]
            reads = reads_of(node)
            # CastLike reads the type of its second input, not the values.
            values = reads[:1] if is_op(node, "CastLike") else reads
            measures = is_op(node, "Shape", "Size")
            if _is_random(node) or not (measures or found.changing.isdisjoint(values)):
                nodes.append(node)
                found.changing.update(made)
            elif found.fixed.issuperset(reads):
                found.fixed.update(made)
            else:
                found.sized.update(made)
        return found._replace(nodes=tuple(nodes))

    @cached_property
    def live(self) -> tuple[NodeProto, ...]:
        """The nodes that depend on the inputs' values and on which an output's values depend."""
        needed, live = set(self.outputs), []
        for node in reversed(self.depending_on_data):
            if not needed.isdisjoint(node.output):
                needed.update(reads_of(node))
                live.append(node)
        return tuple(reversed(live))

    @cached_property
    def needed(self) -> Set[str]:
        """The values on which an output's values depend."""
        return set(self.outputs).union(*map(reads_of, self.live))

    def without_unread(self, nodes: Sequence[NodeProto]) -> tuple[list[NodeProto], set[str]]:
        """Leave out what computes constants that nobody reads any more.

        What nobody read in this graph stays: the caller did not cause it.

        Args:
            nodes: The nodes that are to stand in the place of this graph's.

        Returns:
            Those that stay, and the names that were read in this graph and are not any more.
        """
        kept, before = list(nodes), set(self.readers) | set(self.outputs)
        while True:
            read = {name for node in kept for name in reads_of(node)} | set(self.outputs)
            gone = before - read
            rest = [
                node
                for node in kept
                if key(node) not in self.fixed
                or gone.isdisjoint(node.output)
                or not read.isdisjoint(node.output)
            ]
            if len(rest) == len(kept):
                return kept, gone
            kept = rest


class _Dependence(NamedTuple):
    """What the values of a graph depend on."""

    nodes: tuple[NodeProto, ...]
    changing: set[str]
    sized: set[str]
    fixed: set[str]


def _is_random(node: NodeProto) -> bool:
    return node.domain in DOMAINS and node.op_type.startswith(_RANDOM)


def name_nodes(model: ModelProto, of: Iterable[NodeProto] = ()) -> list[str]:
    """Give each node of the main graph a name that no other has, as tools tell them apart by it.

    Args:
        model: The model, which is changed.
        of: Some of its nodes.

    Returns:
        The names of those.
    """
    names, wanted = OnnxGraph(model).names, set(map(key, of))
    for node in model.graph.node:
        node.name = names[key(node)]
    return [names[first] for first in names if first in wanted]


def key(node: NodeProto) -> str:
    """Return the name of a node's first output, which no other node of the graph has."""
    return next((name for name in node.output if name), "")


def fresh_name(name: str, taken: set[str]) -> str:
    """Append underscores to a name until nothing has it; it is taken from now on."""
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def all_names(graph: GraphProto) -> Iterator[str]:
    """Yield every name of a node, a value or a tensor, inner graphs included."""
    for item in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        yield item.name
    for sparse in graph.sparse_initializer:
        yield sparse.values.name
    for node in graph.node:
        yield node.name
        yield from (*node.input, *node.output)
        for inner in inner_graphs(node):
            yield from all_names(inner)


def is_op(node: NodeProto, *kinds: str) -> bool:
    """Tell whether a node is one of ONNX's own operators of these names."""
    return node.op_type in kinds and node.domain in DOMAINS


def attributes(node: NodeProto) -> dict[str, Any]:
    """Return a node's attributes as Python values: strings as str, tensors as arrays.

    An external tensor, which a Constant alone has, and a graph stay as they are.
    """
    from onnx import helper

    return {item.name: _python(helper.get_attribute_value(item)) for item in node.attribute}


def _python(value: Any) -> Any:
    from onnx import TensorProto

    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, TensorProto):
        return value if is_external(value) else array_of(value, None)
    if isinstance(value, str) or not isinstance(value, Iterable):
        return value
    return tuple(map(_python, value))


def with_inputs(node: NodeProto, inputs: Sequence[str]) -> NodeProto:
    """Return a copy of the node that reads other values."""
    changed = copied(node)
    del changed.input[:]
    changed.input.extend(inputs)
    return changed


def reads_of(node: NodeProto) -> list[str]:
    """Names of all values a node reads, those that its inner graphs take from outside included."""
    names = [name for name in node.input if name]
    for graph in inner_graphs(node):
        names += _free_names(graph)
    return list(dict.fromkeys(names))


def _free_names(graph: GraphProto) -> list[str]:
    own = {x.name for x in graph.input} | {x.name for x in graph.initializer}
    own |= {name for node in graph.node for name in node.output}
    read = [name for node in graph.node for name in reads_of(node)]
    read += [x.name for x in graph.output]
    return [name for name in read if name not in own]
