"""float16 .onnx files."""

from __future__ import annotations

from collections.abc import Sequence, Set
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dsconvert.base.errors import InputError, require
from dsconvert.base.predictor import Array
from dsconvert.formats.onnx.branches import name_apart
from dsconvert.formats.onnx.constants import constant_of
from dsconvert.formats.onnx.graph import (
    OnnxGraph,
    all_names,
    attributes,
    fresh_name,
    is_op,
    name_nodes,
    reads_of,
)
from dsconvert.formats.onnx.inlining import read_as
from dsconvert.formats.onnx.messages import assign
from dsconvert.formats.onnx.nodes import nodes_of
from dsconvert.formats.onnx.sorting import sort_nodes
from dsconvert.formats.onnx.tensors import DOMAINS, constant_value, free_weights
from dsconvert.formats.onnx.types import declare_inner_types

from ..runtimes.samples import first_samples
from ..runtimes.session import first_line
from .onnx_activations import watched_values
from .onnx_outputs import give_back, take_echoes
from .onnx_resize import hold_scales
from .onnx_static import quietly

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

_SAMPLES = 4
"""Samples whose activations are looked at."""
_MARGIN = 2.0
"""How much larger activations of other samples may be."""
_FLOAT, _FLOAT16 = 1, 10
"""ONNX's numbers of float32 and float16."""
_OF_FLOAT = ("AffineGrid",)
"""Operators that ONNX Runtime spells out for float32 alone, whatever ONNX says."""
_FULL, _HALF = "tensor(float)", "tensor(float16)"


def to_float16(
    model: ModelProto,
    *,
    keep_io: bool = True,
    path: Path | None = None,
    samples: Sequence[Array] = (),
) -> ModelProto:
    """Return a float32 model with float16 weights and activations.

    Operators that know no float16 stay float32, and so do nodes that read or make what float16
    cannot hold: with a value above 65504, or with none in the range of full precision. That of
    constants is looked up, that of activations measured.

    Args:
        model: The model with its weights in it; it may be changed.
        keep_io: Whether inputs and outputs stay float32.
        path: A file with the same inputs.
        samples: One array per input, (n, ...), a few of which are run; none measures nothing.

    Returns:
        The converted model.

    Raises:
        InputError: If ONNX Runtime's converter does not take it.
    """
    float16 = require("onnxruntime.transformers.float16", "onnx", "to write float16 .onnx files")
    free_weights(model)
    name_apart(model)
    hold_scales(model)
    _hold_in_tensors(model)
    declare_inner_types(model, None)  # the converter casts what it knows the type of
    echoes = take_echoes(model)
    graph = OnnxGraph(model)
    bad = _constants_out_of_range(graph)
    if path is not None and len(samples):
        with suppress(InputError):  # a model of more than 2 GiB runs from its file alone
            bad |= _activations_out_of_range(graph, path, first_samples(samples, _SAMPLES))
    nodes = [
        node
        for node in graph.nodes
        if not bad.isdisjoint(reads_of(node))
        or not bad.isdisjoint(node.output)
        or not _takes_half(node, graph.opset)
    ]
    kept = name_nodes(model, nodes) if nodes else []
    own = {node.name for node in model.graph.node if is_op(node, "Cast")}
    with quietly():
        try:
            converted = float16.convert_float_to_float16(
                model, keep_io_types=keep_io, node_block_list=kept
            )
        except Exception as error:  # whatever the converter meets
            raise InputError(
                f"ONNX Runtime cannot convert the model to float16: {first_line(error)}",
                "Try --quantize int8 with calibration data.",
                code="not-quantizable",
            ) from error
    result: ModelProto = converted
    sort_nodes(result)  # the converter appends the casts of the inputs
    if kept:
        _join_casts(result, own)
    give_back(result, echoes)
    return result


def _hold_in_tensors(model: ModelProto) -> None:
    """Let constants of numbers be tensors, and outputs that are weights be computed.

    The converter leaves the first as they are, and casts the second before it makes them.
    """
    from onnx import helper, numpy_helper

    for node in nodes_of(model.graph):
        value = constant_value(node, None) if is_op(node, "Constant") else None
        if value is not None and node.attribute[0].name != "value":
            tensor = numpy_helper.from_array(value)
            assign(node.attribute, [helper.make_attribute("value", tensor)])
    taken = set(all_names(model.graph))
    held = {tensor.name: tensor for tensor in model.graph.initializer}
    for name in [output.name for output in model.graph.output if output.name in held]:
        held[name].name = fresh_name(f"{name}_held", taken)
        for node in model.graph.node:
            read_as(node, {name: held[name].name})
        made = helper.make_node("Identity", [held[name].name], [name], fresh_name(name, taken))
        model.graph.node.append(made)


def _constants_out_of_range(graph: OnnxGraph) -> set[str]:
    """Return the float constants that float16 cannot hold."""
    values = {name: constant_of(graph, name) for name in graph.stored}
    return {
        name
        for name, value in values.items()
        if value is not None and value.dtype == np.float32 and not _fits(value, 1.0)
    }


def _activations_out_of_range(graph: OnnxGraph, path: Path, samples: Sequence[Array]) -> set[str]:
    """Return the values between nodes that float16 cannot hold, or hardly.

    Those that nodes make of constants alone, such as a Range, are no stored constants either.
    """
    made = [name for node in graph.nodes for name in node.output if name]
    largest = dict.fromkeys(made, 0.0)
    for values in watched_values(graph.model, made, path, samples, 1):
        for name, value in values.items():
            if isinstance(value, np.ndarray) and value.dtype == np.float32:
                finite = np.where(np.isfinite(value), value, 0)
                largest[name] = max(largest[name], float(np.abs(finite).max(initial=0)))
    return {name for name, most in largest.items() if not _fits(np.asarray(most), _MARGIN)}


def _fits(value: Array, margin: float) -> bool:
    """Tell whether float16 holds a value's largest number, and that with all its digits."""
    limits, largest = np.finfo(np.float16), float(np.abs(value).max(initial=0))
    return largest == 0 or float(limits.tiny) <= largest <= float(limits.max) / margin


def _takes_half(node: NodeProto, opset: int) -> bool:
    """Tell whether an operator is defined for float16 wherever it is for float32."""
    from onnx import defs

    if node.domain not in DOMAINS:
        return _foreign_takes_half(node)
    if node.op_type in _OF_FLOAT:
        return False
    try:
        schema = defs.get_schema(node.op_type, opset, "")
    except defs.SchemaError:
        return True
    kinds = [set(one.types) for one in (*schema.inputs, *schema.outputs)]
    return all(_HALF in kind for kind in kinds if _FULL in kind)


def _foreign_takes_half(node: NodeProto) -> bool:
    """Tell the same of an operator of ONNX Runtime's own; those of its blocked layout do not."""
    known = _foreign_operators().get((node.domain, node.op_type))
    if known is None:
        return True
    used = [
        *zip(known.inputs, node.input, strict=False),
        *zip(known.outputs, node.output, strict=False),
    ]
    kinds = [set(one.types) for one, name in used if name]
    return all(_HALF in kind for kind in kinds if _FULL in kind)


@cache
def _foreign_operators() -> dict[tuple[str, str], Any]:
    """Return ONNX Runtime's descriptions of all operators, by domain and name."""
    ort = require(
        "onnxruntime.capi.onnxruntime_pybind11_state", "onnx", "to write float16 .onnx files"
    )
    return {(one.domain, one.name): one for one in ort.get_all_operator_schema()}


def _join_casts(model: ModelProto, own: Set[str]) -> None:
    """Let nodes that stay float32 read each other's results: the converter narrows them between.

    What a node of float32 makes is cast to float16, and back for the next one.

    Args:
        model: The converted model, which is changed.
        own: Names of the casts that are not the converter's: of conditions and whole numbers.
    """
    graph = OnnxGraph(model)
    whole = {
        name: source.input[0]
        for name, node in graph.makers.items()
        if _casts_to(node, _FLOAT)
        and (source := graph.makers.get(node.input[0])) is not None
        and _casts_to(source, _FLOAT16)
        and source.name not in own
        and not _casts_to(graph.makers.get(source.input[0]), _FLOAT16)
    }
    for node in model.graph.node:
        if _casts_to(node, _FLOAT) and node.output[0] in whole:
            source = whole[node.output[0]]
            node.op_type, node.input[0] = "Identity", source
            assign(node.attribute, [])
        elif not whole.keys().isdisjoint(reads_of(node)):
            read_as(node, whole)
    read = {name for node in model.graph.node for name in reads_of(node)}
    read |= {value.name for value in model.graph.output}
    assign(model.graph.node, [one for one in model.graph.node if not _is_idle(one, read)])


def _casts_to(node: NodeProto | None, kind: int) -> bool:
    return node is not None and is_op(node, "Cast") and attributes(node)["to"] == kind


def _is_idle(node: NodeProto, read: Set[str]) -> bool:
    return is_op(node, "Cast", "Identity") and read.isdisjoint(node.output)
