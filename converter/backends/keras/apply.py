"""A new Keras model in which chosen convolutions are blocks. Deciding happens elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dsconvert.base.errors import InputError
from dsconvert.base.keras_weights import give_weights

from ...core.stages import Weights
from ...core.types import Factorization
from .copying import copy_layer
from .emit import emit_block
from .graph import flatten, graph_of, keras_module, nodes_in_order
from .stages import norm_changes


def rebuild(
    model: Any,
    factors: Mapping[str, Factorization],
    refitted: Mapping[str, Weights],
    norms: Mapping[str, Any],
) -> tuple[Any, list[str]]:
    """Build the rewritten model; the given one is left as it is.

    Args:
        model: A functional or Sequential model.
        factors: The block of each convolution, by `FlatGraph.name_of`.
        refitted: New weights of layers that keep their form, and of the norms that follow.
        norms: The BatchNormalization layer of the given model that follows each named layer.

    Returns:
        A functional model of stock layers with the same inputs, outputs and names, and sentences
        about what could not be carried over.
    """
    return _Rebuild(model, factors, refitted, norms).run()


class _Rebuild:
    def __init__(
        self,
        model: Any,
        factors: Mapping[str, Factorization],
        refitted: Mapping[str, Weights],
        norms: Mapping[str, Any],
    ) -> None:
        self.source = model
        flat = flatten(model)
        operations = {id(step.operation): step.operation for step in flat.steps}
        self.names = {key: flat.name_of(operation) for key, operation in operations.items()}
        self.factors, self.refitted = factors, refitted
        self.norm_of = {id(norm): name for name, norm in norms.items()}
        self.taken = {operation.name for operation in operations.values()}
        self.notes: list[str] = []
        self.made: dict[int, Callable[..., Any]] = {}
        self.pending: list[tuple[Any, Any]] = []

    def run(self) -> tuple[Any, list[str]]:
        rebuilt = self._model(self.source)
        for old, new in self.pending:  # every layer was built by being called
            give_weights(new, old.get_weights())
            self._refit(old, new)
        return rebuilt, self.notes

    def _model(self, model: Any) -> Any:
        keras = keras_module()
        graph = graph_of(model)
        known: dict[int, Any] = {}
        for tensor in graph.inputs:
            layer = tensor._keras_history.operation
            known[id(tensor)] = type(layer).from_config(layer.get_config()).output
        # A shared layer may name an output with any of its calls.
        last = {id(tensor._keras_history.operation) for tensor in graph.outputs}
        for node in nodes_in_order(graph):
            if any(id(tensor) not in known for tensor in node.arguments.keras_tensors):
                continue
            args, kwargs = node.arguments.fill_in(known)
            operation = self._operation(node.operation, id(node.operation) in last)
            outputs = operation(*args, **kwargs)
            made = keras.tree.flatten(outputs)
            known.update(zip(map(id, node.outputs), made, strict=True))
        return keras.Model(
            _same_structure(graph._inputs_struct, known),
            _same_structure(graph._outputs_struct, known),
            name=model.name,
        )

    def _operation(self, operation: Any, is_output: bool) -> Callable[..., Any]:
        if id(operation) not in self.made:
            self.made[id(operation)] = self._make(operation, is_output)
        return self.made[id(operation)]

    def _make(self, operation: Any, is_output: bool) -> Callable[..., Any]:
        if graph_of(operation) is not None:
            nested: Callable[..., Any] = self._model(operation)
            return nested
        factors = self.factors.get(self.names.get(id(operation), ""))
        if factors is not None:
            if operation.kernel_constraint is not None:
                kind = type(operation.kernel_constraint).__name__
                self.notes.append(
                    f"{operation.name}: dropped kernel_constraint {kind}: "
                    "a bound on the kernel is none on its factors"
                )
            return emit_block(operation, factors, self.taken, keeps_name=is_output)
        return self._clone(operation)

    def _clone(self, operation: Any) -> Callable[..., Any]:
        try:
            clone: Callable[..., Any] = copy_layer(operation)
        except Exception as error:
            raise InputError(
                f"layer {operation.name!r} ({type(operation).__name__}) cannot be copied: {error}",
                "Give the class a get_config() that names all its constructor's arguments.",
                code="layer-not-copied",
            ) from error
        if hasattr(operation, "get_weights"):
            self.pending.append((operation, clone))
        return clone

    def _refit(self, old: Any, new: Any) -> None:
        weights = self.refitted.get(self.names.get(id(old), ""))
        if weights is not None and hasattr(new, "kernel"):
            new.kernel.assign(weights.kernel.reshape(new.kernel.shape))
            if weights.bias is not None:
                new.bias.assign(weights.bias)
        follows = self.refitted.get(self.norm_of.get(id(old), ""))
        if follows is not None and follows.norm is not None:
            for variable, value in norm_changes(new, follows.norm):
                variable.assign(value)


def _same_structure(structure: Any, known: Mapping[int, Any]) -> Any:
    """Return the structure with its tensors replaced; a list of one is the tensor itself."""
    keras = keras_module()
    filled = keras.tree.map_structure(lambda tensor: known[id(tensor)], structure)
    if isinstance(filled, list | tuple) and len(filled) == 1:
        return filled[0]
    return filled
