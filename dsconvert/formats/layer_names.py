"""What a reader of inner values says of a layer."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import NamedTuple

WRAPPERS = re.compile(r"^(?:functional\w*/)+")
"""What Keras' export puts before every name, with other numbers each time."""
WEIGHTED = ("convolution", "depthwise", "MatMul")
"""What the operations with weights are called in it."""
_NUMBERED = re.compile(r"^(.+)_\d+$")


class Layer(NamedTuple):
    """A layer as a file has it.

    Attributes:
        name: As people know it.
        node: As the file calls it.
        op: Its operator.
    """

    name: str
    node: str
    op: str


MOVERS = frozenset(
    (
        *("Quantize", "Dequantize", "QuantizeLinear", "DequantizeLinear", "Cast", "Constant"),
        *("Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Shape", "Pack"),
        *("Expand_Dims", "Strided_Slice"),
    )
)
"""Operators that compute nothing: no layers."""


def as_in_source(name: str, layers: Collection[str]) -> str:
    """Return a tensor's name with its layers as the model calls them that it was made from.

    TensorFlow puts the number of a call behind each layer: what it calls "conv2d_1_2" is conv2d_1,
    and its "conv2d_1" is conv2d.

    Args:
        name: With one layer or several, as "block_1/conv2d_1_2/convolution".
        layers: The names that the model's layers have.
    """

    def plain(part: str) -> str:
        numbered = _NUMBERED.match(part)
        return numbered[1] if numbered and numbered[1] in layers else part

    return "/".join(map(plain, name.split("/")))


def are_numbered(names: Iterable[str], layers: Collection[str]) -> bool:
    """Tell whether the layers in tensors' names have the numbers of their calls.

    Args:
        names: Of the tensors.
        layers: The names that the model's layers have.
    """
    inner = {part for name in names for one in name.split(";") for part in one.split("/")[:-1]}
    return not any(part in layers and as_in_source(part, layers) == part for part in inner)


def operator_layer(tensor: str) -> str:
    """Return the layer that made a tensor of a file whose names are those of its source.

    Args:
        tensor: Its name: "relu/Relu;conv2d_1/convolution" is of conv2d_1, as weights tell the
            layer where several were fused.
    """
    chosen = _telling(tensor)
    return chosen.rpartition("/")[0] or chosen


def _telling(tensor: str) -> str:
    parts = [WRAPPERS.sub("", part) for part in tensor.split(";")]
    weighted = [part for part in parts if part.split("/")[-1].startswith(WEIGHTED)]
    return (weighted or parts)[0]


def layer_name(tensor: str) -> str:
    """Return the Keras layer that a tensor's name is made of.

    "functional_2_1/stem_1/Relu;functional_2_1/stem_1/convolution" is "stem": the layer with the
    weights where several were fused, without the number of its call.
    """
    chosen = _telling(tensor)
    layer = chosen.rpartition("/")[0] or chosen
    return re.sub(r"_1$", "", layer.replace("_1/", "/")) if "/" in chosen else layer
