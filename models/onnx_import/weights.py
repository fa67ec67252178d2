"""Which Keras variable holds which tensor of the ONNX file, and the way back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dsconvert.base.errors import InputError, require
from dsconvert.base.predictor import Array
from dsconvert.formats.onnx.graph import all_names, fresh_name
from dsconvert.formats.onnx.messages import copied
from dsconvert.formats.onnx.tensors import stored_tensors

Arrange = Callable[[Array], Array]
"""Puts the elements of a stored tensor where Keras wants them: transpose, reshape, slice."""


MOVES = frozenset({"Identity", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze"})
"""Operators that may stand between a stored weight and the node that reads it."""


def moved_by(nodes: Sequence[Any], constants: Mapping[str, Array | None], opset: int) -> Arrange:
    """Return what a chain of `MOVES` does to the stored tensor that it begins with.

    Args:
        nodes: The chain's nodes as they stand in the file, in order.
        constants: The values of what else they read.
        opset: The version of the operators.
    """
    onnx = require("onnx", "onnx", "to import .onnx files")
    evaluator = require("onnx.reference", "onnx", "to import .onnx files").ReferenceEvaluator
    root = nodes[0].input[0]

    def arrange(stored: Array) -> Array:
        element = onnx.helper.np_dtype_to_tensor_dtype(stored.dtype)
        graph = onnx.helper.make_graph(
            nodes,
            "moves",
            [onnx.helper.make_tensor_value_info(root, element, stored.shape)],
            [onnx.ValueInfoProto(name=nodes[-1].output[0])],
            [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
        )
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
        return np.asarray(evaluator(model).run(None, {root: stored})[0])

    return arrange


_WHICH = "Give the model that import_onnx made, or one loaded from what it saved."


@dataclass(frozen=True)
class Binding:
    """One variable of a layer and the input of a node that it was read from.

    Attributes:
        layer: The layer's name.
        variable: The attribute that holds it, such as ``"kernel"``.
        node: The index of the node.
        input: Which of its inputs.
        value: The name of that input.
        arrange: What was done to the stored elements; it moves them and computes nothing.
        scale: What they were multiplied by afterwards.
    """

    layer: str
    variable: str
    node: int
    input: int
    value: str
    arrange: Arrange
    scale: float = 1.0

    def forward(self, stored: Array) -> Array:
        """Return the variable's values for a stored tensor, in float32."""
        arranged = self.arrange(stored.astype(np.float32))
        return arranged if self.scale == 1 else (arranged * np.float32(self.scale))

    def backward(self, stored: Array, variable: Array) -> Array:
        """The stored tensor for a variable's values; where those are as imported, it is as it was.

        The way back is found by arranging the elements' numbers.

        Raises:
            InputError: If the variable has another shape.
        """
        imported = self.forward(stored)
        if variable.shape != imported.shape:
            raise InputError(
                f"{self.variable} of layer {self.layer!r} has shape {variable.shape}; "
                f"{self.value!r} in the ONNX model takes {imported.shape}.",
                _WHICH,
                code="not-the-import",
            )
        changed = variable != imported
        if not changed.any():
            return stored
        source = self.arrange(np.arange(stored.size).reshape(stored.shape))
        result = stored.ravel().copy()
        result[source[changed]] = variable[changed] / self.scale  # cast to the stored type
        return result.reshape(stored.shape)


def write_back(
    proto: Any, bindings: Sequence[Binding], model: Any, folded: dict[str, Array]
) -> Any:
    """Return a copy of an ONNX model with the values of a Keras model's weights.

    Args:
        proto: The original, its weights in memory.
        bindings: Which variable came from where.
        model: The Keras model, with layers of the names that the import gave them.
        folded: The values that were computed from stored ones before they became weights.

    Raises:
        InputError: If the model lacks a layer, or a weight has another shape.
    """
    onnx = require("onnx", "onnx", "to write .onnx files")
    result = copied(proto)
    tensors = stored_tensors(result)
    by_value: dict[str, list[Binding]] = defaultdict(list)
    for binding in bindings:
        by_value[binding.value].append(binding)
    uses = defaultdict(list)
    for index, node in enumerate(result.graph.node):
        for position, name in enumerate(node.input):
            uses[name].append((index, position))
    taken = set(all_names(result.graph))
    for value, sharers in by_value.items():
        tensor = tensors.get(value)
        stored = onnx.numpy_helper.to_array(tensor) if tensor is not None else folded[value]
        updated: dict[tuple[int, int], Array] = {}
        for binding in sharers:  # several variables of one layer may read one input
            key = (binding.node, binding.input)
            updated[key] = binding.backward(updated.get(key, stored), variable_of(model, binding))
        if all(new is stored for new in updated.values()):
            continue
        first = next(iter(updated.values()))
        whole = set(uses[value]) == set(updated) and value not in _outputs(result)
        if (
            tensor is not None
            and whole
            and all(np.array_equal(new, first) for new in updated.values())
        ):
            tensor.CopyFrom(onnx.numpy_helper.from_array(first, tensor.name))
            continue
        for number, ((index, position), new) in enumerate(updated.items(), start=1):
            if new is stored:
                continue
            name = fresh_name(f"{value}_{number}", taken)
            result.graph.initializer.append(onnx.numpy_helper.from_array(new, name))
            if result.ir_version < 4:  # where every initialiser is listed among the inputs
                result.graph.input.append(
                    onnx.helper.make_tensor_value_info(
                        name, onnx.helper.np_dtype_to_tensor_dtype(new.dtype), new.shape
                    )
                )
            result.graph.node[index].input[position] = name
    return result


def variable_of(model: Any, binding: Binding) -> Array:
    """Return the values of a bound variable.

    Raises:
        InputError: If the model has no such layer or variable.
    """
    try:
        variable = getattr(model.get_layer(binding.layer), binding.variable)
    except (ValueError, AttributeError):
        variable = None
    if variable is None:
        raise InputError(
            f"the Keras model has no {binding.variable} in a layer {binding.layer!r}: it is not "
            "the imported model, or its layers were renamed or replaced.",
            _WHICH,
            code="not-the-import",
        )
    return np.asarray(variable)


def _outputs(proto: Any) -> set[str]:
    return {value.name for value in proto.graph.output}
