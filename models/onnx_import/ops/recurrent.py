"""LSTM, GRU and RNN: Keras layers, one for each direction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dsconvert.base.predictor import Array

from ..builder import KerasBuilder, refuse
from ..graph import Node
from ..registry import op
from ..values import Constant, Tensor

_LAYERS = {"LSTM": "LSTM", "GRU": "GRU", "RNN": "SimpleRNN"}
_DEFAULT = {"LSTM": ("sigmoid", "tanh", "tanh"), "GRU": ("sigmoid", "tanh"), "RNN": ("tanh",)}
_ACTIVATIONS = {
    "sigmoid": "sigmoid", "tanh": "tanh", "relu": "relu", "softsign": "softsign",
    "softplus": "softplus", "elu": "elu",
}  # fmt: skip
"""Keras' names of ONNX's functions, which have no parameters, or Keras' defaults of them."""
_GATES = {"LSTM": (0, 2, 3, 1), "GRU": (0, 1, 2), "RNN": (0,)}
"""Where Keras' gates stand in ONNX: i, f, c, o of i, o, f, c; z, r, h of the same."""
_BATCH_FIRST = (1, 0, 2)
"""Keras' axes, n, T and features, of ONNX's T, n and features."""


@op("LSTM", "GRU", "RNN")
def recurrent(node: Node, build: KerasBuilder) -> Sequence[Tensor]:
    """All time steps, and the last state, of one direction or both."""
    _check(node, build)
    layout = node.get("layout", 0)
    x = build.tensor(node)
    steps = build.reorder(x, (0, 1, 2) if layout else _BATCH_FIRST).keras
    mask = _mask(node, build, steps)
    forward = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
    found = []
    for index, backwards in enumerate(forward[node.get("direction", "forward")]):
        layer = _layer(node, build, index, backwards, masked=mask is not None)
        states = _initial(node, build, steps, index, layout)
        options = {"initial_state": states} if states else {}
        made = layer(steps, **options) if mask is None else layer(steps, mask=mask, **options)
        _fill(node, build, layer, index)
        sequence, *last = made
        if backwards:
            sequence = build.apply(node, "flip", sequence, axis=1)
        found.append(
            [build.apply(node, "expand_dims", sequence, axis=2)]
            + [build.apply(node, "expand_dims", state, axis=1) for state in last]
        )
    orders = ((0, 1, 2, 3), (0, 1, 2)) if layout else ((2, 0, 1, 3), (1, 0, 2))
    results = []
    for place, parts in enumerate(zip(*found, strict=True)):
        if place >= len(node.outputs) or not node.outputs[place]:
            continue
        axis = 1 if place else 2
        tensor = build.apply(node, "concatenate", list(parts), axis=axis)
        results.append(build.result(node, tensor, orders[min(place, 1)], place))
    build.notes.append(f"{node}: its weights do not train")
    return results


def _check(node: Node, build: KerasBuilder) -> None:
    """Refuse what Keras' layers compute otherwise."""
    for one in _activations(node):
        drawn = all(name in _ACTIVATIONS for name in one)
        if not drawn or len(set(one[1:])) > 1 or node.get("activation_alpha"):
            raise refuse(node, f"the activations {', '.join(one)}")
    if node.get("clip") is not None or node.get("input_forget", 0):
        raise refuse(node, "a clipped cell, or coupled gates")
    if node.has(4) and isinstance(build.value(node, 4), Constant):
        lengths = build.constant(node, 4)
        if not np.all(lengths == build.tensor(node).shapes[0][1 if node.get("layout", 0) else 0]):
            raise refuse(node, "sequences of several lengths")
    if node.op == "LSTM" and node.has(7) and np.any(build.constant(node, 7)):
        raise refuse(node, "peephole connections")


def _mask(node: Node, build: KerasBuilder, steps: Any) -> Any:
    """Return which steps, (n, T), belong to sequences whose lengths are an input; None for all.

    The steps behind a sequence give zeros and leave its state as it is, in Keras as in ONNX, in
    either direction.
    """
    if not node.has(4) or isinstance(build.value(node, 4), Constant):
        return None
    lengths = build.apply(node, "expand_dims", build.tensor(node, 4).keras, axis=1)
    one = build.apply(node, "ones_like", steps[..., 0], dtype="int32")
    number = build.apply(node, "cumsum", one, axis=1)
    return build.apply(node, "less_equal", number, build.apply(node, "cast", lengths, "int32"))


def _activations(node: Node) -> list[tuple[str, ...]]:
    """Return the functions of each direction, in lower case: of the gates, then of the state."""
    count = len(_DEFAULT[node.op])
    given = [one.lower() for one in node.get("activations", ())]
    return [tuple(given[i : i + count]) for i in range(0, len(given), count)]


def _layer(node: Node, build: KerasBuilder, index: int, backwards: bool, *, masked: bool) -> Any:
    units = int(build.constant(node, 2).shape[-1])
    options: dict[str, Any] = {}
    functions = _activations(node) or [_DEFAULT[node.op]] * 2
    names = [_ACTIVATIONS[name] for name in functions[index]]
    options["activation"] = names[-1]
    if node.op != "RNN":
        options["recurrent_activation"] = names[0]
    if node.op == "GRU":
        options["reset_after"] = bool(node.get("linear_before_reset", 0))
    return build.layer(
        node,
        _LAYERS[node.op],
        suffix=f"_{index}" if index else "",
        units=units,
        return_sequences=True,
        return_state=True,
        go_backwards=backwards,
        zero_output_for_mask=masked,
        trainable=False,
        **options,
    )


def _initial(node: Node, build: KerasBuilder, steps: Any, index: int, layout: int) -> list[Any]:
    """Return the states before the first step, (n, units), as Keras takes them; none for zeros."""
    places = [place for place in ((5, 6) if node.op == "LSTM" else (5,)) if node.has(place)]
    values = [build.read(node.inputs[place]) for place in places]
    if all(isinstance(one, Constant) and not any(map(np.any, one.probes)) for one in values):
        return []
    if node.op == "LSTM" and len(values) != 2:
        raise refuse(node, "one of its two states before the first step is missing")
    states = []
    for value in values:
        if isinstance(value, Constant):
            states.append(_repeated(node, build, steps, value.probes[0], index, layout))
            continue
        stored = build.onnx_order(value).keras
        states.append(stored[:, index] if layout else stored[index])
    return states


def _repeated(
    node: Node, build: KerasBuilder, steps: Any, state: Array, index: int, layout: int
) -> Any:
    """Return a constant state, (directions, n, units), of one direction for any batch.

    Raises:
        InputError: If it is not the same for all samples.
    """
    rows = state[:, index] if layout else state[index]
    if not np.all(rows == rows[:1]):
        raise refuse(node, "a constant state before the first step that differs between samples")
    zeros = build.apply(node, "zeros_like", steps[:, 0, :1])
    return build.apply(node, "add", zeros, rows[:1].astype(np.float32))


def _fill(node: Node, build: KerasBuilder, layer: Any, index: int) -> None:
    """Put the weights into a built layer, gate by gate."""
    gates = _GATES[node.op]
    kernel, state = (build.constant(node, place)[index] for place in (1, 2))
    units = state.shape[-1]
    bias = np.zeros((2, len(gates) * units), np.float32)
    if node.has(3):
        bias = build.constant(node, 3)[index].reshape(2, -1)

    def arranged(weight: Array) -> Array:
        """Gates in Keras' order, along the first axis."""
        parts = weight.reshape(len(gates), units, *weight.shape[1:])
        return parts[list(gates)].reshape(weight.shape)

    cell = layer.cell
    cell.kernel.assign(arranged(kernel).T)
    cell.recurrent_kernel.assign(arranged(state).T)
    biases = np.stack([arranged(one) for one in bias])
    cell.bias.assign(biases if len(cell.bias.shape) == 2 else biases.sum(axis=0))
