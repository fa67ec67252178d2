"""A part of an ONNX graph as a model of its own, run by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from dsconvert.base.errors import InputError
from dsconvert.base.predictor import Array

from .checking import is_weight
from .graph import OnnxGraph, reads_of
from .session import sentence, session
from .tensors import DOMAINS, array_of, embedded, is_external, size_in_bytes, tensors_and_places

if TYPE_CHECKING:
    from onnx import NodeProto


_LARGE = 16 << 20
"""Bytes from which on a dense layer's weights are fed and not stored in the part: ONNX Runtime
would hold them three times more: in the model that it was given, as a tensor, and packed."""
_DENSE = ("Gemm", "MatMul")
_FED = (1, 10, 11)
"""FLOAT, FLOAT16 and DOUBLE, which NumPy has too."""


class Unable(InputError):
    """ONNX Runtime cannot run a part of the model on these data."""

    default_code = "part-does-not-run"


@contextmanager
def _saying_why() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        raise Unable(
            f"ONNX Runtime: {sentence(error)}", "Use --method svd, which needs no data."
        ) from error


class Part:
    """Some nodes of a graph, from given values to wanted ones.

    Args:
        graph: Where the nodes come from; gives initialisers, opsets and functions.
        nodes: In an order in which they can run.
        given: The element type of each value that is fed.
        wanted: The values to compute.
        folded: Further constants, by name.
        shapes: Of the values that are fed, where they are known; by default those of the graph.
    """

    def __init__(
        self,
        graph: OnnxGraph,
        nodes: Sequence[NodeProto],
        given: Mapping[str, np.dtype[Any]],
        wanted: Sequence[str],
        folded: Mapping[str, Array],
        shapes: Mapping[str, Sequence[int | None]] | None = None,
    ) -> None:
        from onnx import ModelProto, ValueInfoProto, helper, numpy_helper

        source = graph.model
        model = ModelProto(ir_version=max(source.ir_version, 4))
        model.opset_import.extend(source.opset_import)
        model.functions.extend(source.functions)
        model.graph.name = "part"
        for name, dtype in given.items():
            kind = helper.np_dtype_to_tensor_dtype(dtype)
            # Of an input of unknown rank ONNX Runtime takes Shape → Slice for an empty list.
            known = (shapes or {}).get(name)
            known = graph.shapes.get(name) if known is None else known
            free = None if known is None else [None] * len(known)
            model.graph.input.append(helper.make_tensor_value_info(name, kind, free))
        made = {name for node in nodes for name in node.output}
        needed = {name for node in nodes for name in reads_of(node)} | set(wanted)
        stored = needed - made - given.keys() - folded.keys() - set(wanted)
        self._fed = _large_weights(graph, nodes, stored)
        for name, array in self._fed.items():
            kind = helper.np_dtype_to_tensor_dtype(array.dtype)
            model.graph.input.append(helper.make_tensor_value_info(name, kind, array.shape))
        for name in sorted(needed - made - given.keys() - self._fed.keys()):
            if name in folded:
                model.graph.initializer.append(numpy_helper.from_array(folded[name], name))
            elif name in graph.initializers:
                model.graph.initializer.append(graph.initializers[name])
            elif name in graph.constants:
                model.graph.node.append(graph.constants[name])
            elif name in graph.sparse:
                model.graph.sparse_initializer.append(graph.sparse[name])
        model.graph.node.extend(nodes)
        # Without a type: ONNX Runtime infers it.
        model.graph.output.extend(ValueInfoProto(name=name) for name in wanted)
        self._given, self._wanted = dict(given), list(wanted)
        outside = False
        for tensor, initialiser in tensors_and_places(model.graph):
            if is_external(tensor) and initialiser and is_weight(tensor):
                outside = True
            elif is_external(tensor):  # which ONNX Runtime's shape inference wants to read
                tensor.CopyFrom(embedded(tensor, graph.folder))
        with _saying_why():
            self._session = session(model, graph.folder if outside else None)

    def run(self, values: Mapping[str, Array]) -> dict[str, Array]:
        """Compute the wanted values; what is given is cast to the type that the graph has."""
        feeds = {
            name: np.ascontiguousarray(values[name], dtype) for name, dtype in self._given.items()
        }
        with _saying_why():
            outputs = self._session.run(self._wanted, feeds | self._fed) if self._wanted else []
        return dict(zip(self._wanted, outputs, strict=True))


def _large_weights(
    graph: OnnxGraph, nodes: Sequence[NodeProto], needed: AbstractSet[str]
) -> dict[str, Array]:
    """Return large weights that dense layers alone read."""
    weights: set[str] = set()
    others: set[str] = set()
    for node in nodes:
        dense = node.op_type in _DENSE and node.domain in DOMAINS
        second = node.input[1:2] if dense else []
        weights.update(second)
        others.update(node.input[:1] if dense else reads_of(node), node.input[2:])
    return {
        name: array_of(graph.initializers[name], graph.folder)
        for name in sorted((weights - others) & needed & graph.initializers.keys())
        if graph.initializers[name].data_type in _FED
        and size_in_bytes(graph.initializers[name]) >= _LARGE
    }
