"""Shorter names for the tensors of a .tflite file.

The converter names the output of a fused operator after everything that went into it: half a
kilobyte for a convolution with its normalisation, a twelfth of MLPerf Tiny's int8 ResNet8.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ..layer_names import WEIGHTED, WRAPPERS, are_numbered, as_in_source


def shorten(model: Any, layers: Collection[str] = ()) -> None:
    """Rename the tensors inside an unpacked model; the inputs and outputs keep their names.

    A name keeps what it ends in, and the operation with the weights, which tells the layer. Names
    stay different from one another: weights get a number where an operator's output has the name.

    Args:
        model: A ``ModelT``; changed in place.
        layers: What the layers of the model are called that it was made from, where that is known.
    """
    names = [tensor.name or b"" for graph in model.subgraphs for tensor in graph.tensors]
    if not are_numbered((name.decode(errors="replace") for name in names), layers):
        layers = ()
    for graph in model.subgraphs:
        ends = {*graph.inputs, *graph.outputs}
        taken = {graph.tensors[index].name for index in ends}
        made = [index for operator in graph.operators for index in operator.outputs]
        for index in dict.fromkeys([*made, *range(len(graph.tensors))]):
            tensor = graph.tensors[index]
            if index not in ends and tensor.name:
                tensor.name = _free(_short(tensor.name.decode(errors="replace"), layers), taken)
                taken.add(tensor.name)


def _short(name: str, layers: Collection[str]) -> str:
    parts = [as_in_source(WRAPPERS.sub("", part), layers) for part in name.split(";")]
    weighted = [part for part in parts if part.split("/")[-1].startswith(WEIGHTED)]
    return ";".join(dict.fromkeys((parts[0], *weighted[:1])))


def _free(name: str, taken: set[bytes]) -> bytes:
    """Return the name, with the first number behind it that makes it a new one."""
    candidate, number = name.encode(), 0
    while candidate in taken:
        number += 1
        candidate = f"{name}{number}".encode()
    return candidate
