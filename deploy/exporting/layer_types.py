"""The records of a report on the layers of a quantized file."""

from __future__ import annotations

import math
from typing import Literal

import msgspec


class LayerError(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One layer's output in the quantized file against the float32 file's.

    Attributes:
        name: The layer's name, as people know it.
        node: What the file calls it: the output's name in a .tflite file, the node's in an .onnx
            file.
        op: The operator.
        finite: Whether every value is finite.
        sqnr_db: 10·log10(Σ r² / Σ (r − y)²), in dB; None where both are equal, or r is all zero.
        signal: Root mean square of the float32 file's values.
    """

    name: str
    node: str
    op: str
    finite: bool
    sqnr_db: float | None
    signal: float


class QuantizationReport(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All layers that both files have, in the order of the network.

    The errors add up on the way: a layer shows its own and those of the layers before it.

    Attributes:
        samples: How many samples went through.
        layers: One entry per layer.
        unmatched: How many of the float32 file's layers have no counterpart, since it was merged
            with another one.
    """

    schema: Literal["dsconvert.layers/1"] = "dsconvert.layers/1"
    samples: int
    layers: tuple[LayerError, ...]
    unmatched: int

    def worst(self, count: int) -> tuple[LayerError, ...]:
        """Return the layers of lowest SQNR, the worst first; of equal ones the earlier."""
        return tuple(sorted(self.layers, key=_order)[:count])


def _order(layer: LayerError) -> float:
    if not layer.finite:
        return -math.inf
    return math.inf if layer.sqnr_db is None else layer.sqnr_db
