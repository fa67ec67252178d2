"""Parts of a .tflite file as files of their own."""

from __future__ import annotations

from copy import copy
from typing import Any

from dsconvert.base.errors import require

from .pack import packed


def one_output_each(content: bytes) -> list[bytes]:
    """Split a file with several outputs: what each output needs, alone.

    Args:
        content: A file of one graph, with one input.

    Returns:
        One file per output, in the order of the outputs; none has a signature.
    """
    schema = require("ai_edge_litert.schema_py_generated", "keras", "to read .tflite files")
    model = schema.ModelT.InitFromPackedBuf(content)
    (graph,) = model.subgraphs
    return [_only(schema, model, graph, int(output)) for output in graph.outputs]


def _only(schema: Any, model: Any, graph: Any, output: int) -> bytes:
    """Return the file of what one tensor is computed from."""
    wanted = {output}
    operators: list[Any] = []
    for operator in reversed(graph.operators):  # which stand in an order that can be run
        if wanted & set(map(int, operator.outputs)):
            operators.insert(0, copy(operator))
            wanted |= {int(tensor) for tensor in operator.inputs if tensor >= 0}
    wanted |= set(map(int, graph.inputs))
    kept = sorted(wanted)
    place = {tensor: number for number, tensor in enumerate(kept)}
    buffers, tensors = [schema.BufferT()], []
    for tensor in (copy(graph.tensors[number]) for number in kept):
        data = model.buffers[tensor.buffer]
        tensor.buffer = 0
        if data.data is not None and len(data.data):
            buffers.append(data)
            tensor.buffer = len(buffers) - 1
        tensors.append(tensor)
    codes: dict[int, int] = {}
    for operator in operators:
        operator.opcodeIndex = codes.setdefault(operator.opcodeIndex, len(codes))
        operator.inputs = [place[int(t)] if t >= 0 else -1 for t in operator.inputs]
        operator.outputs = [place[int(t)] for t in operator.outputs]
    part = schema.ModelT(
        version=model.version,
        operatorCodes=[model.operatorCodes[code] for code in codes],
        subgraphs=[
            schema.SubGraphT(
                tensors=tensors,
                inputs=[place[int(tensor)] for tensor in graph.inputs],
                outputs=[place[output]],
                operators=operators,
                name="main",
            )
        ],
        description=model.description,
        buffers=buffers,
    )
    return packed(part, sum(len(b.data) for b in buffers if b.data is not None))
