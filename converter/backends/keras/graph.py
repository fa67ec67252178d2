"""A Keras model as a flat list of steps. The only file that reads Keras' node internals.

Nested models are walked through as if their layers stood in the outer one. Nothing is called
symbolically, so the user's model gains no nodes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dsconvert.base.errors import InputError, require


def keras_module() -> Any:
    """Keras on TensorFlow, or one sentence about the extra that brings them."""
    require("tensorflow", "keras", "to work with Keras models")
    return require("keras", "keras", "to work with Keras models")


def graph_of(operation: Any) -> Any:
    """Return the Functional graph behind a model that has one, else None (a plain layer)."""
    keras = keras_module()
    if isinstance(operation, keras.Sequential):
        return operation._functional
    return operation if isinstance(operation, keras.src.models.Functional) else None


def nodes_in_order(graph: Any) -> Iterator[Any]:
    """The nodes of one Functional graph in the order in which they are computed, no inputs."""
    for depth in sorted(graph._nodes_by_depth, reverse=True):
        for node in graph._nodes_by_depth[depth]:
            if node.operation is not None and not node.is_input:
                yield node


def flat(structure: Any) -> list[Any]:
    """Return the leaves of a nested structure, in Keras' own order."""
    leaves: list[Any] = keras_module().tree.flatten(structure)
    return leaves


@dataclass(frozen=True)
class Step:
    """One call of one layer or operation.

    Attributes:
        operation: The layer or stateless operation.
        node: Keras' record of the call.
        reads: Value number of each symbolic tensor of the call's arguments, by its id.
        writes: Value numbers of the outputs.
    """

    operation: Any
    node: Any
    reads: Mapping[int, int]
    writes: tuple[int, ...]

    def run(self, values: dict[int, Any]) -> None:
        """Compute the outputs in inference mode and add them to ``values``."""
        tensors = {key: values[number] for key, number in self.reads.items()}
        args, kwargs = self.node.arguments.fill_in(tensors)
        if getattr(self.operation, "_call_has_training_arg", False):
            kwargs["training"] = False
        outputs = self.operation(*args, **kwargs)
        values.update(zip(self.writes, flat(outputs), strict=True))


@dataclass(frozen=True)
class FlatGraph:
    """All steps of a model. Value numbers 0 … inputs − 1 are the model's inputs.

    Attributes:
        steps: In order of computation.
        inputs: Value numbers of the inputs.
        outputs: Value numbers of the outputs.
        symbolic: The symbolic tensor (shape, dtype) of each value.
        paths: Where each operation stands, by its id: "layer" or "nested model/layer".
    """

    steps: tuple[Step, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    symbolic: tuple[Any, ...]
    paths: Mapping[int, str]

    def name_of(self, operation: Any) -> str:
        """The operation's name, with its path where another one of the model has the same name."""
        name = str(operation.name)
        namesakes = [path for path in self.paths.values() if path.split("/")[-1] == name]
        return name if len(namesakes) == 1 else self.paths[id(operation)]

    def calls(self, operation: Any) -> list[int]:
        """Indices of the steps that call an operation."""
        return [i for i, step in enumerate(self.steps) if step.operation is operation]


def flatten(model: Any) -> FlatGraph:
    """Read a functional or Sequential model, nested models included.

    Raises:
        InputError: If the model has no graph (a subclassed or unbuilt model).
    """
    graph = graph_of(model)
    if graph is None:
        raise InputError(
            f"{model.name!r} ({type(model).__name__}) has no graph of layers to read.",
            "Build it by calling it once, or rewrite it as a functional model.",
            code="no-layer-graph",
        )
    steps: list[Step] = []
    symbolic: list[Any] = list(graph.inputs)
    paths: dict[int, str] = {}

    def visit(inner: Any, arguments: list[int], path: str) -> list[int]:
        known = dict(zip(map(id, inner.inputs), arguments, strict=True))
        for node in nodes_in_order(inner):
            tensors = node.arguments.keras_tensors
            if any(id(tensor) not in known for tensor in tensors):
                continue  # a call outside this graph
            nested = graph_of(node.operation)
            if nested is not None:
                given = [known[id(tensor)] for tensor in tensors]
                results = visit(nested, given, f"{path}{node.operation.name}/")
            else:
                results = list(range(len(symbolic), len(symbolic) + len(node.outputs)))
                symbolic.extend(node.outputs)
                reads = {id(tensor): known[id(tensor)] for tensor in tensors}
                paths.setdefault(id(node.operation), path + node.operation.name)
                steps.append(Step(node.operation, node, reads, tuple(results)))
            known.update(zip(map(id, node.outputs), results, strict=True))
        return [known[id(tensor)] for tensor in inner.outputs]

    inputs = list(range(len(symbolic)))
    outputs = visit(graph, inputs, "")
    return FlatGraph(tuple(steps), tuple(inputs), tuple(outputs), tuple(symbolic), paths)


def as_functional(model: Any) -> Any:
    """Return the model itself if it has a graph, else the graph that its ``call`` draws.

    A subclassed model whose ``call`` is made of Keras layers and operations becomes a functional
    model of the same layers: plain, and loadable without the class.

    Raises:
        InputError: If ``call`` does something that Keras cannot draw.
    """
    keras = keras_module()
    if graph_of(model) is not None:
        return model
    shape = getattr(model, "_build_shapes_dict", None)
    if not model.built or not shape or len(shape) != 1:
        raise InputError(
            f"{model.name!r} is a subclassed model that was never called on one input.",
            "Call it once on a batch, so that its layers are built, and rewrite it again.",
            code="model-not-called",
        )
    inputs = keras.Input(batch_shape=(None, *next(iter(shape.values()))[1:]), name="input")
    try:
        outputs = model.call(inputs)
    except Exception as error:
        raise InputError(
            f"{model.name!r} ({type(model).__name__}): its call() is not made of Keras layers and "
            f"operations alone, so its convolutions cannot be replaced: {error}",
            "Use keras.layers and keras.ops in call(), or write it as a functional model.",
            code="subclassed-model",
        ) from error
    return keras.Model(inputs, outputs, name=model.name)
