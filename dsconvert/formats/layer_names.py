"""What a reader of inner values says of a layer."""

from __future__ import annotations

import re
from typing import NamedTuple

WRAPPERS = re.compile(r"^(?:functional\w*/)+")
"""What Keras' export puts before every name, with other numbers each time."""
WEIGHTED = ("convolution", "depthwise", "MatMul")
"""What the operations with weights are called in it."""


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


def layer_name(tensor: str) -> str:
    """Return the Keras layer that a tensor's name is made of.

    "functional_2_1/stem_1/Relu;functional_2_1/stem_1/convolution" is "stem": the layer with the
    weights where several were fused, without the number of its call.
    """
    parts = [WRAPPERS.sub("", part) for part in tensor.split(";")]
    weighted = [part for part in parts if part.split("/")[-1].startswith(WEIGHTED)]
    chosen = (weighted or parts)[0]
    layer = chosen.rpartition("/")[0] or chosen
    return re.sub(r"_1$", "", layer.replace("_1/", "/")) if "/" in chosen else layer
