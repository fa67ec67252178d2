"""Loops of a known number of turns written out, and choices by the data made of both branches.

What has no control flow left can be drawn layer by layer.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .branches import with_known_shapes, without_constant_branches
from .constants import constant_of
from .graph import OnnxGraph, all_names, attributes, is_op
from .inlining import inlined_graph
from .messages import assign, copied
from .node_writer import NodeWriter
from .shapes import inferred_model, symbolic_shape

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

_TURNS = 256
"""That a loop may have."""
_NODES = 100_000
"""That all turns together may have."""
_LOOPS = ("Loop", "Scan")


def without_control_flow(model: ModelProto, folder: Path | None = None) -> ModelProto:
    """Write out what a graph repeats, and compute both branches where the data choose.

    A loop whose number of turns depends on the data stays, as does a choice between values whose
    shapes are not known to be the same.

    Args:
        model: The model, its weights in memory; it is not changed.
        folder: Where its external data are.

    Returns:
        A new model; the given one where there is nothing to write out.
    """
    while True:
        model = without_constant_branches(model, folder)
        if not any(is_op(node, *_LOOPS, "If") for node in model.graph.node):
            return model
        written = _next(model, folder)
        if written is None:
            return model
        model = written


def _next(model: ModelProto, folder: Path | None) -> ModelProto | None:
    """Return the model with one loop or choice less; None where none can be written out."""
    graph = OnnxGraph(model, folder)
    known = OnnxGraph(with_known_shapes(graph))
    for index, node in enumerate(model.graph.node):
        if not is_op(node, *_LOOPS, "If"):
            continue
        new = copied(model)
        taken = set(all_names(new.graph))
        write = {"Loop": _loop, "Scan": _scan, "If": _choice}[node.op_type]
        to = write(new, node, known, taken)
        if to is None:
            continue
        before, after = list(new.graph.node[:index]), list(new.graph.node[index + 1 :])
        assign(new.graph.node, [*before, *to.nodes, *after])
        new.graph.initializer.extend(to.weights)
        if len(new.graph.node) > _NODES:
            continue
        if node.op_type != "If" or _same_shapes(new, node):
            return new
    return None


class _Writer(NodeWriter):
    """Writes the nodes of the turns."""

    def __init__(self, model: ModelProto, node: NodeProto, taken: set[str]) -> None:
        super().__init__(node, taken)
        self.model = model
        self.prefix = node.name or self.prefix
        self.stored: dict[str, str] = {}

    def turn(self, body: GraphProto, place: int, given: list[str]) -> list[str]:
        """Add the nodes of one turn; its results."""
        prefix = f"{self.prefix}/{place}"
        nodes, made = inlined_graph(self.model, body, prefix, self.taken, given, self.stored)
        self.nodes += nodes
        return made

    def give(self, name: str, value: str) -> None:
        from onnx import helper

        if name:
            self.nodes.append(helper.make_node("Identity", [value], [name], f"{name}_last"))

    def joined(self, parts: list[str], axis: int) -> str:
        """Return values stacked along a new axis."""
        places = self.constant(np.array([axis]))
        rows = [self.make("Unsqueeze", part, places) for part in parts]
        return self.make("Concat", *rows, axis=axis)


def _loop(model: ModelProto, node: NodeProto, graph: OnnxGraph, taken: set[str]) -> _Writer | None:
    """Write out a Loop that ends after a known number of turns."""
    body: GraphProto = attributes(node)["body"]
    most = constant_of(graph, node.input[0]) if node.input[0] else None
    goes = constant_of(graph, node.input[1]) if len(node.input) > 1 and node.input[1] else True
    if most is None or goes is None or not 1 <= int(np.ravel(most)[0]) <= _TURNS:
        return None
    if not np.all(goes) or not _goes_on(body) or _too_many(body, int(np.ravel(most)[0])):
        return None
    to = _Writer(model, node, taken)
    carried, yes = list(node.input[2:]), to.constant(np.array(True))
    rows: list[list[str]] = []
    for place in range(int(np.ravel(most)[0])):
        made = to.turn(body, place, [to.constant(np.int64(place)), yes, *carried])
        carried, scanned = made[1 : 1 + len(carried)], made[1 + len(carried) :]
        rows.append(scanned)
    joined = [to.joined(list(parts), 0) for parts in zip(*rows, strict=True)]
    for name, value in zip(node.output, [*carried, *joined], strict=False):
        to.give(name, value)
    return to


def _goes_on(body: GraphProto) -> bool:
    """Tell whether the condition that a body gives is the one it is given, or a constant yes."""
    from onnx import numpy_helper

    name, makers = body.output[0].name, {one.output[0]: one for one in body.node if one.output}
    while name in makers and is_op(makers[name], "Identity", "Cast"):
        name = makers[name].input[0]
    if name == body.input[1].name:
        return True
    held = {one.name: one for one in body.initializer}
    if name in makers and is_op(makers[name], "Constant"):
        held[name] = attributes(makers[name]).get("value")
    return held.get(name) is not None and bool(np.all(numpy_helper.to_array(held[name])))


def _scan(model: ModelProto, node: NodeProto, graph: OnnxGraph, taken: set[str]) -> _Writer | None:
    """Write out a Scan over axes of a known size."""
    given = attributes(node)
    body: GraphProto = given["body"]
    count = int(given["num_scan_inputs"])
    states, scanned = list(node.input[: len(node.input) - count]), node.input[-count:]
    results = len(node.output) - len(states)
    axes = given.get("scan_input_axes") or [0] * count
    turned = given.get("scan_input_directions") or [0] * count
    out_axes = given.get("scan_output_axes") or [0] * results
    out_turned = given.get("scan_output_directions") or [0] * results
    shapes = [graph.shapes.get(name) for name in scanned]
    sizes = {None if s is None else s[a] for s, a in zip(shapes, axes, strict=True)}
    turns = sizes.pop()
    if sizes or turns is None or not 1 <= turns <= _TURNS or _too_many(body, turns):
        return None
    to = _Writer(model, node, taken)
    rows: list[list[str]] = []
    for place in range(turns):
        parts = [
            to.make("Gather", name, to.constant(np.int64(turns - 1 - place if back else place)),
                    axis=axis)
            for name, axis, back in zip(scanned, axes, turned, strict=True)
        ]  # fmt: skip
        made = to.turn(body, place, [*states, *parts])
        states, part = made[: len(states)], made[len(states) :]
        rows.append(part)
    joined = [
        to.joined(list(parts[::-1] if back else parts), axis)
        for parts, axis, back in zip(zip(*rows, strict=True), out_axes, out_turned, strict=True)
    ]
    for name, value in zip(node.output, [*states, *joined], strict=True):
        to.give(name, value)
    return to


def _too_many(body: GraphProto, turns: int) -> bool:
    return turns * len(body.node) > _NODES


def _choice(
    model: ModelProto, node: NodeProto, graph: OnnxGraph, taken: set[str]
) -> _Writer | None:
    """Compute both branches of an If, and take the values of one."""
    if not all(node.output):
        return None
    to = _Writer(model, node, taken)
    made = []
    for branch in ("then_branch", "else_branch"):
        nodes, results = inlined_graph(model, to.given[branch], f"{to.prefix}/{branch}", taken)
        to.nodes += nodes
        made.append(results)
    rank = graph.shapes.get(node.input[0])
    condition = node.input[0]
    if rank != ():
        condition = to.make("Reshape", condition, to.constant(np.zeros(0, np.int64)))
    for name, one, other in zip(node.output, *made, strict=True):
        to.give(name, to.make("Where", condition, one, other))
    return to


def _same_shapes(model: ModelProto, node: NodeProto) -> bool:
    """Tell whether both values of each choice are known to have the same shape."""
    try:
        light = inferred_model(model, None)
    except Exception:  # it helps where it can
        return False
    values = (*light.graph.value_info, *light.graph.input, *light.graph.output)
    shapes = {value.name: symbolic_shape(value) for value in values}
    shapes |= {one.name: tuple(one.dims) for one in model.graph.initializer}
    makers = {name: one for one in model.graph.node for name in one.output}
    for name in node.output:
        _, one, other = (shapes.get(part) for part in makers[makers[name].input[0]].input)
        if one is None or one != other or None in one:
            return False
    return True
