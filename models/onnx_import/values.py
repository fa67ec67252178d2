"""What flows along the edges of an ONNX graph while it is drawn anew in Keras."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dsconvert.base.errors import InputError
from dsconvert.base.predictor import Array, Shape

Order = tuple[int, ...]
"""``order[k]`` is the ONNX axis that a Keras tensor holds at its axis k; (0, 2, 3, 1) for NHWC."""
Sizes = tuple[int, ...]
"""A shape without free sizes."""


@dataclass(frozen=True)
class Tensor:
    """A value that depends on the model's inputs.

    Attributes:
        name: Its name in the ONNX graph.
        keras: The symbolic Keras tensor that holds it.
        order: The ONNX axis at each Keras axis.
        shapes: Its shape in ONNX axes, once per probe: a size that differs is free.
        rows: None, or for each position along the last axis the ONNX position that is stored
            there: what a Flatten leaves behind where a dense layer can take it as it is.
    """

    name: str
    keras: Any
    order: Order
    shapes: tuple[Sizes, ...]
    rows: Array | None = None

    @property
    def rank(self) -> int:
        """The number of axes."""
        return len(self.order)

    @property
    def shape(self) -> Shape:
        """The shape in ONNX axes; None where a size is free."""
        return common_shape(self.shapes)

    def spreads(self, onnx_axis: int, shapes: Sequence[Sizes]) -> bool:
        """Tell whether an axis of one position becomes one of free size in these shapes."""
        return self.shape[onnx_axis] == 1 and len({sizes[onnx_axis] for sizes in shapes}) > 1

    def axis(self, onnx_axis: int) -> int:
        """Return the Keras axis that holds an ONNX axis, which may be counted from the end."""
        return self.order.index(onnx_axis % self.rank)


@dataclass(frozen=True)
class Constant:
    """A value that does not depend on the model's inputs, at most on their sizes.

    Attributes:
        name: Its name in the ONNX graph.
        probes: Its value, once per probe, or once where it depends on nothing.
    """

    name: str
    probes: tuple[Array, ...]

    @property
    def is_fixed(self) -> bool:
        """Tell whether it is the same for all input sizes."""
        first = self.probes[0]
        nan = first.dtype.kind in "fc"  # which a constant may hold: it differs from itself
        return all(np.array_equal(p, first, equal_nan=nan) for p in self.probes[1:])

    @property
    def value(self) -> Array:
        """The value; float16, bfloat16 and float64 in float32.

        Raises:
            InputError: If it depends on the size of the model's inputs.
        """
        if not self.is_fixed:
            raise InputError(
                f"the constant {self.name!r} depends on the free sizes of the model's inputs.",
                "Fix them before importing: python -m onnxruntime.tools.make_dynamic_shape_fixed "
                "--input_name NAME --input_shape 1,3,224,224 model.onnx fixed.onnx",
                code="free-sizes",
            )
        return in_float32(self.probes[0])


Value = Tensor | Constant


def in_float32(array: Array) -> Array:
    """Any floating type in float32; the rest as it is."""
    wide = array.dtype.kind == "f" or array.dtype.name.startswith(("bfloat", "float"))
    return array.astype(np.float32) if wide else array


def common_shape(shapes: Sequence[Sizes]) -> Shape:
    """Return what several shapes of one rank have in common; None where they differ."""
    return tuple(sizes[0] if len(set(sizes)) == 1 else None for sizes in zip(*shapes, strict=True))
