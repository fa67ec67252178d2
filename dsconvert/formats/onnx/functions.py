"""Model-local functions, as newer PyTorch exports them: a body kept once and called often.

Their calls are replaced by the bodies where something inside is to be changed or imported.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

from dsconvert.base.errors import require

from .messages import assign, copied, in_bytes
from .nodes import nodes_of
from .tensors import DOMAINS

if TYPE_CHECKING:
    from onnx import FunctionProto, ModelProto, NodeProto
    from onnx.defs import OpSchema

_LEVELS = 4
"""How deep functions of ONNX may call each other."""
_SETTLED = 13
"""The opset from which on an operator that changes what it computes is told so by an attribute."""
_Key = tuple[str, str]
"""A function's domain and name."""


def inlined(
    model: ModelProto, wanted: Callable[[NodeProto], bool] = lambda node: True
) -> ModelProto:
    """Replace the calls of functions by their bodies.

    Args:
        model: The model; it is not changed.
        wanted: Functions that hold such a node, or call one that does, are inlined.

    Returns:
        A new model; the given one where nothing is to be inlined.
    """
    names = _holding(model, wanted)
    if not names:
        return model
    inliner = require("onnx.inliner", "onnx", "to read .onnx files")
    model = copied(model)
    state_functions(model)
    result: ModelProto = inliner.inline_selected_functions(model, sorted(names))
    trim_inputs(result)
    return result


def state_functions(model: ModelProto) -> None:
    """Say of functions what ONNX's checker and inliner do not find out; what they compute stays.

    Functions that nobody calls go, calls tell the attributes that the function has defaults for,
    which ONNX's inliner forgets, and functions are of the model's own opset where that changes
    nothing.

    Args:
        model: The model, which is changed.
    """
    _drop_uncalled(model)
    _give_defaults(model)
    _use_one_version(model)


def _drop_uncalled(model: ModelProto) -> None:
    called: set[_Key] = set()
    more = {_key(node) for node in nodes_of(model.graph)}
    while more - called:
        called |= more
        bodies = [one for one in model.functions if _key_of(one) in called]
        more = {_key(node) for body in bodies for node in nodes_of(body)}
    assign(model.functions, [one for one in model.functions if _key_of(one) in called])


def _give_defaults(model: ModelProto) -> None:
    defaults = {
        (one.domain, one.name, one.overload): list(one.attribute_proto) for one in model.functions
    }
    for body in (model.graph, *model.functions):
        for node in nodes_of(body):
            given = {one.name for one in node.attribute}
            stated = defaults.get((node.domain, node.op_type, node.overload), [])
            node.attribute.extend(one for one in stated if one.name not in given)


def spelled_by_onnx(model: ModelProto, known: Container[str]) -> ModelProto:
    """Spell out operators for which ONNX itself gives a function of others: Attention is one.

    Args:
        model: The model, without functions of its own; it is not changed.
        known: Names of the operators to keep.

    Returns:
        A new model; the given one where nothing is to be done.
    """
    for _ in range(_LEVELS):
        kinds = {node.op_type for node in nodes_of(model.graph) if node.domain in DOMAINS}
        version = max(
            (one.version for one in model.opset_import if one.domain in DOMAINS), default=1
        )
        wanted = [one for one in sorted(kinds) if one not in known and _has_body(one, version)]
        if not wanted:
            break
        inliner = require("onnx.inliner", "onnx", "to read .onnx files")
        try:
            made = inliner.inline_selected_functions(
                _with_types(model), [("", kind) for kind in wanted], inline_schema_functions=True
            )
        except Exception:  # onnx raises RuntimeError where it knows too little of a type
            break
        assign(made.graph.value_info, model.graph.value_info)
        model = made
        trim_inputs(model)
    return model


def _with_types(model: ModelProto) -> ModelProto:
    """Return a copy that tells the types of what it holds: onnx looks for them there."""
    from onnx import helper

    model = copied(model)
    known = {value.name for value in model.graph.value_info}
    model.graph.value_info.extend(
        helper.make_tensor_value_info(one.name, one.data_type, one.dims)
        for one in model.graph.initializer
        if one.name not in known
    )
    return model


def _has_body(kind: str, version: int) -> bool:
    from onnx import defs

    try:
        schema = defs.get_schema(kind, version, "")
    except defs.SchemaError:
        return False
    return bool(schema.has_function or schema.has_context_dependent_function)


def trim_inputs(model: ModelProto) -> bool:
    """Drop empty names at the end of the nodes' inputs; an optional input may just be left out.

    ONNX Runtime's quantizer takes the empty name of a missing bias for a bias.

    Args:
        model: The model, which is changed.

    Returns:
        Whether anything changed.
    """
    changed = False
    for node in nodes_of(model.graph):
        while node.input and not node.input[-1]:
            node.input.pop()
            changed = True
    return changed


def _use_one_version(model: ModelProto) -> None:
    """Put functions in the model's own opset, where their operators are the same in both.

    onnx' checker refuses files in which they are not.
    """
    own = next((one.version for one in model.opset_import if not _domain(one.domain)), 0)
    for function in model.functions:
        for one in function.opset_import:
            kinds = {node.op_type for node in nodes_of(function) if not _domain(node.domain)}
            same = all(_alike(kind, one.version, own) for kind in kinds)
            if not _domain(one.domain) and same:
                one.version = own


def _alike(kind: str, version: int, other: int) -> bool:
    """Tell whether an operator is the same in two opsets, but for the types that it takes.

    Before opset 13 Softmax and its like changed what they compute, and not what they are told.
    """
    first, second = _schema(kind, version), _schema(kind, other)
    if first is None or second is None:  # a function of the model, or no operator
        return first is second
    if first.since_version == second.since_version:
        return True
    return min(first.since_version, second.since_version) >= _SETTLED and _told(first) == _told(
        second
    )


def _schema(kind: str, version: int) -> OpSchema | None:
    from onnx import defs

    try:
        return defs.get_schema(kind, version, "")
    except defs.SchemaError:
        return None


def _told(schema: OpSchema) -> tuple[list[str], list[str], dict[str, tuple[bool, bytes]]]:
    """Return what an operator is told: its inputs, outputs, and attributes with their defaults."""
    defaults = {
        name: (one.required, in_bytes(one.default_value)) for name, one in schema.attributes.items()
    }
    return [one.name for one in schema.inputs], [one.name for one in schema.outputs], defaults


def _domain(name: str) -> str:
    return "" if name in DOMAINS else name


def _holding(model: ModelProto, wanted: Callable[[NodeProto], bool]) -> set[_Key]:
    """Domain and name of each function that holds a wanted node, itself or by a call."""
    found: set[_Key] = set()
    while True:
        more = {
            (function.domain, function.name)
            for function in model.functions
            if any(_calls(node, found) or wanted(node) for node in function.node)
        }
        if more == found:
            return found
        found = more


def _calls(node: NodeProto, functions: set[_Key]) -> bool:
    return (node.domain, node.op_type) in functions


def expanded_size(model: ModelProto) -> int | None:
    """Count the nodes of a model whose calls are replaced by the bodies of what they call.

    ONNX and ONNX Runtime replace them all: forty functions that each call the next one twice are a
    small file and 10¹² nodes.

    Returns:
        The number; None where a function calls itself, or another one that calls it.
    """
    bodies = {(one.domain, one.name): Counter(map(_key, nodes_of(one))) for one in model.functions}
    calls = {name: [called for called in body if called in bodies] for name, body in bodies.items()}
    sizes: dict[_Key, int] = {}
    try:
        for name in TopologicalSorter(calls).static_order():
            sizes[name] = _size(bodies[name], sizes)
    except CycleError:
        return None
    return _size(Counter(map(_key, nodes_of(model.graph))), sizes)


def _size(body: Counter[_Key], sizes: dict[_Key, int]) -> int:
    return sum(times * sizes.get(name, 1) for name, times in body.items())


def _key(node: NodeProto) -> _Key:
    return node.domain, node.op_type


def _key_of(function: FunctionProto) -> _Key:
    return function.domain, function.name
