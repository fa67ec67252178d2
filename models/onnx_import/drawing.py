"""From a graph and its facts to a functional Keras model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dsconvert.base.errors import DsconvertError, InputError
from dsconvert.base.units import first_few
from dsconvert.formats.onnx.contrib import BLOCKED, FROM_BEFORE
from dsconvert.formats.onnx.outputs import left_out_by, not_numeric

from . import layout, ops
from .builder import KerasBuilder, refuse
from .graph import Graph, GraphInput, Node
from .probe import ProbedValues
from .registry import HANDLERS
from .values import Constant, Order, Tensor, common_shape
from .weights import Binding

_CHANNELS = frozenset(
    [
        "Conv",
        "ConvTranspose",
        "MaxPool",
        "AveragePool",
        "LpPool",
        "GlobalMaxPool",
        "GlobalAveragePool",
        "GlobalLpPool",
        "BatchNormalization",
        "InstanceNormalization",
        "GroupNormalization",
        "LRN",
        "PRelu",
        "Resize",
        "Upsample",
        "DepthToSpace",
        "SpaceToDepth",
    ]
)
"""Operators whose second axis is that of the channels."""
_NO_CHANNELS = frozenset(["Transpose", "Reshape", "Flatten", "MatMul", "Gemm", "Squeeze", "Shape"])
_TRACED = "export the model without control flow (torch.onnx.export of a traced model)"
_INSTEAD = {
    "If": f"the data choose between values of other, or of free, shapes: {_TRACED}",
    "Loop": f"the data decide how often it turns: {_TRACED}",
    "Scan": f"the size that it goes over is free, or large: {_TRACED}",
    "QuantizeLinear": "add --dequantize, or give the float model",
    "DequantizeLinear": "add --dequantize, or give the float model",
    "DynamicQuantizeLinear": "add --dequantize, or give the float model",
    "DeformConv": "it is drawn where its sizes are known: fix them (--input-size), or export .onnx",
}


@dataclass(frozen=True)
class ConvertedGraph:
    """A graph in Keras.

    Attributes:
        model: The functional model.
        bindings: Which variable came from which stored tensor.
        notes: Sentences for the user.
        input_axes: For each input the ONNX axis at each Keras axis.
        output_axes: For each output the same.
    """

    model: Any
    bindings: tuple[Binding, ...]
    notes: tuple[str, ...]
    input_axes: tuple[Order, ...]
    output_axes: tuple[Order, ...]


def known_operators() -> set[str]:
    """Return the operators that a handler draws, or a refusal says something of."""
    ops.load()
    return {*HANDLERS, *_INSTEAD}


def check_supported(graph: Graph) -> None:
    """Refuse a graph with operators that no handler knows, or with outputs of text and the like.

    Raises:
        InputError: If there are any.
    """
    ops.load()
    odd = not_numeric(graph.proto)
    if odd:
        told = "s" if len(odd) > 1 else ""
        raise InputError(
            f"the output{told} {', '.join(map(repr, odd))} {'are' if told else 'is'} no tensor of "
            "numbers, and Keras has no other.",
            f"Leave out what names, lists or maps the results: {left_out_by(odd)}",
            code="not-numeric",
        )
    unknown = [node for node in graph.live if node.domain or node.op not in HANDLERS]
    if not unknown:
        return
    kinds: dict[str, list[str]] = {}
    for node in unknown:
        kind = f"{node.domain}.{node.op}" if node.domain else node.op
        kinds.setdefault(kind, []).append(node.name)
    listed = "; ".join(f"{kind} ({first_few(names)})" for kind, names in kinds.items())
    advice = list(dict.fromkeys(_INSTEAD[kind] for kind in kinds if kind in _INSTEAD))
    quantized = any(kind.startswith(("QLinear", "com.microsoft.QLinear")) for kind in kinds)
    if quantized and _INSTEAD["QuantizeLinear"] not in advice:
        advice.append(_INSTEAD["QuantizeLinear"])
    if any(node.domain == BLOCKED for node in unknown):
        advice = [FROM_BEFORE]
    if not advice and any(node.domain for node in unknown):
        advice = ["export the model with ONNX' own operators only"]
    raise InputError(
        f"the model has operators that cannot be imported: {listed}.",
        f"What to do instead: {'; '.join(advice or ['cut the part with them off'])}.",
        code="operators-not-imported",
    )


def convert_graph(graph: Graph, facts: ProbedValues) -> ConvertedGraph:
    """Draw a graph in Keras.

    Raises:
        InputError: If a node uses a form that Keras has nothing for; it is named.
    """
    import keras

    ops.load()
    builder = KerasBuilder(graph, facts)
    for name, probes in facts.constants.items():
        builder.store(Constant(name, probes))
    inputs = [_input(builder, info, facts) for info in graph.inputs]
    for node in graph.live:
        made = builder.absorbed(node) or _drawn(node, builder)
        for tensor in (made,) if isinstance(made, Tensor) else made:
            builder.store(tensor)
    outputs: list[Tensor] = []
    for name, made in _ends(graph, builder).items():
        value = builder.unflatten(made)
        rank = len(value.order)
        if value.order not in (layout.identity(rank), layout.channels_last(rank)):
            value = builder.onnx_order(value)  # a transposed table is another one
        if any(value.keras is x.keras for x in (*inputs, *outputs)):
            copied = builder.layer_named(name, "Identity")(value.keras)
            value = Tensor(name, copied, value.order, value.shapes)
        outputs.append(value)
    model = keras.Model(
        _one_or_list([x.keras for x in inputs]),
        _one_or_list([x.keras for x in outputs]),
        name=builder.name(graph.proto.graph.name or "model"),
    )
    return ConvertedGraph(
        model,
        tuple(builder.bindings),
        tuple(builder.notes),
        tuple(x.order for x in inputs),
        tuple(x.order for x in outputs),
    )


def _ends(graph: Graph, builder: KerasBuilder) -> dict[str, Tensor]:
    """Return the outputs; refuse those that are the same for all inputs, such as anchors.

    Keras could make them depend on an input, but not have samples: of a batch of many there would
    be one, and what predicts in batches would join several.

    Raises:
        InputError: With all of them, and how to leave them out.
    """
    ends = {name: builder.read(name) for name in graph.outputs}
    constant = [name for name, value in ends.items() if isinstance(value, Constant)]
    kept = {name: value for name, value in ends.items() if isinstance(value, Tensor)}
    if not constant:
        return kept
    told = "s" if len(constant) > 1 else ""
    does = "do" if told else "does"
    raise InputError(
        f"the output{told} {', '.join(map(repr, constant))} {does} not depend on what is in the "
        "model's inputs: there is nothing to be computed in Keras.",
        "Leave out what is the same for every sample; ONNX Runtime gives it once: "
        f"{left_out_by(constant)}"
        if kept
        else "Give a model with an output that depends on its inputs.",
        code="output-is-constant",
    )


def _drawn(node: Node, builder: KerasBuilder) -> Tensor | Sequence[Tensor]:
    """Draw one node.

    Raises:
        InputError: If that cannot be done: a layer of Keras may refuse what the graph asks for.
    """
    try:
        return HANDLERS[node.op](node, builder)
    except DsconvertError:
        raise
    except Exception as error:  # what Keras and TensorFlow raise shares no base class
        raise refuse(
            node,
            f"Keras says: {_told(error)}",
            "Give real inputs with --data, to whose size free sizes are fixed; else please report "
            "the model.",
        ) from error


def _told(error: Exception) -> str:
    """Return what an error says, on one line: the cause where a layer only says that it failed."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if lines and lines[0].startswith("Exception encountered when calling"):
        lines = lines[1:] or lines
    return " ".join(lines)[:400].rstrip(".") or type(error).__name__


def _one_or_list(tensors: list[Any]) -> Any:
    return tensors[0] if len(tensors) == 1 else tensors


def _input(builder: KerasBuilder, info: GraphInput, facts: ProbedValues) -> Tensor:
    import keras

    shapes = facts.inputs[info.name]
    rank = len(info.shape)
    order = layout.identity(rank)
    if rank in (3, 4, 5) and _wants_channels_last(builder.graph, info.name):
        order = layout.channels_last(rank)
    sizes = common_shape(shapes)
    dtype = "float32" if info.dtype.kind not in "biu" else info.dtype.name
    tensor = keras.Input(
        batch_shape=tuple(sizes[axis] for axis in order), dtype=dtype, name=builder.name(info.name)
    )
    value = Tensor(info.name, tensor, order, shapes)
    builder.store(value)
    return value


def _wants_channels_last(graph: Graph, name: str) -> bool:
    """Tell whether a value reaches a convolution before anything that moves its axes."""
    seen = {name}
    queue = [name]
    while queue:
        for node in graph.consumers.get(queue.pop(0), ()):
            if node.op in _CHANNELS:
                return True
            if node.op in _NO_CHANNELS:
                continue
            fresh = [x for x in node.outputs if x and x not in seen]
            seen.update(fresh)
            queue.extend(fresh)
    return False
