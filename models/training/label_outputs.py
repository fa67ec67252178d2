"""Outputs that name things have no gradient: what they are chosen from stands in their place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dsconvert.base.errors import InputError, require


def with_scores(model: Any) -> Any:
    """Return a view of a model that gives scores where it gives labels.

    An ArgMax, a TopK's indices and a threshold give whole numbers, through which nothing is
    learned. The floats that such operators read take their outputs' place, once each.

    Args:
        model: A functional Keras model.

    Returns:
        A model of the same layers, or the model itself where every output has a gradient.

    Raises:
        InputError: If an output depends on no floats at all.
    """
    keras = require("keras", "keras", "to fine-tune")
    if not getattr(model, "outputs", None):
        return model
    found: list[Any] = []
    replaced = False
    for output in model.outputs:
        if _has_gradient(output):
            found.append(output)
            continue
        scores = _chosen_from(output)
        if not scores:
            raise InputError(
                f"the output {output._keras_history.operation.name} is whole numbers that depend "
                "on no scores: there is nothing to learn from.",
                "Cut that output off.",
                code="nothing-to-learn",
            )
        replaced = True
        found += scores
    if not replaced:
        return model
    distinct = list({id(tensor): tensor for tensor in found}.values())
    return keras.Model(model.input, distinct, name=model.name)


def _is_float(tensor: Any) -> bool:
    return "float" in str(tensor.dtype)


def _read_by_maker(tensor: Any) -> Sequence[Any]:
    """Return the tensors that the operation behind a tensor reads; none for an input."""
    operation, node, _ = tensor._keras_history
    nodes = operation._inbound_nodes
    return nodes[node].input_tensors if node < len(nodes) else ()


def _has_gradient(tensor: Any) -> bool:
    """Tell whether floats lead from weights, or from some input of the model, to a tensor.

    Inputs themselves may be whole numbers: images of bytes, words.
    """
    pending, seen = [tensor], set()
    while pending:
        one = pending.pop()
        if id(one) in seen or not _is_float(one):
            continue
        seen.add(id(one))
        read = _read_by_maker(one)
        if not read or getattr(one._keras_history.operation, "weights", None):
            return True
        pending += read
    return False


def _chosen_from(tensor: Any) -> list[Any]:
    """Return the last floats with a gradient that a tensor depends on."""
    pending, seen, found = [tensor], set(), {}
    while pending:
        one = pending.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        read = _read_by_maker(one)
        if read and _is_float(one) and _has_gradient(one):
            found[id(one)] = one
        else:
            pending += read
    return list(found.values())
