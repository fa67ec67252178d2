"""Shorter names for the tensors of a .tflite file.

The converter names the output of a fused operator after everything that went into it: half a
kilobyte for a convolution with its normalisation, a twelfth of MLPerf Tiny's int8 ResNet8.
"""

from __future__ import annotations

from typing import Any

from ..layer_names import WEIGHTED, WRAPPERS


def shorten(model: Any) -> None:
    """Rename the tensors inside an unpacked model; the inputs and outputs keep their names.

    A name keeps what it ends in, and the operation with the weights, which tells the layer. Names
    stay different from one another: weights get a number where an operator's output has the name.

    Args:
        model: A ``ModelT``; changed in place.
    """
    for graph in model.subgraphs:
        ends = {*graph.inputs, *graph.outputs}
        taken = {graph.tensors[index].name for index in ends}
        made = [index for operator in graph.operators for index in operator.outputs]
        for index in dict.fromkeys([*made, *range(len(graph.tensors))]):
            tensor = graph.tensors[index]
            if index not in ends and tensor.name:
                tensor.name = _free(_short(tensor.name.decode(errors="replace")), taken)
                taken.add(tensor.name)


def _short(name: str) -> str:
    parts = [WRAPPERS.sub("", part) for part in name.split(";")]
    weighted = [part for part in parts if part.split("/")[-1].startswith(WEIGHTED)]
    return ";".join(dict.fromkeys((parts[0], *weighted[:1])))


def _free(name: str, taken: set[bytes]) -> bytes:
    """Return the name, with the first number behind it that makes it a new one."""
    candidate, number = name.encode(), 0
    while candidate in taken:
        number += 1
        candidate = f"{name}{number}".encode()
    return candidate
