"""The one shape in which every runtime shows itself to those who compare outputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Shape = tuple[int | None, ...]

_AT_ONCE = 1 << 22
"""Input values per run: 27 images of 224×224×3, 2 of 720×720×3, whose activations are a few GiB in
a network of 64 channels at full size."""


def at_once(arrays: Sequence[Array], most: int) -> int:
    """Tell how many samples to run at once so that large ones do not fill the memory.

    Args:
        arrays: One per input, (n, ...).
        most: The number for small samples.
    """
    values = sum(math.prod(array.shape[1:]) for array in arrays)
    return max(1, min(most, _AT_ONCE // max(1, values)))


class Predictor(Protocol):
    """A loaded model: float arrays in, float arrays out.

    Quantized files quantize their inputs and dequantize their outputs behind this face,
    and files with a fixed batch are fed batch by batch, so that a Keras model, a .tflite
    and a .onnx file answer alike.
    """

    @property
    def input_names(self) -> tuple[str, ...]:
        """The names of the inputs, in the order in which they are given."""

    @property
    def input_shapes(self) -> tuple[Shape, ...]:
        """Their shapes with the batch axis first; None where a size is free."""

    @property
    def output_names(self) -> tuple[str, ...]:
        """The names of the outputs, in the order in which they are returned."""

    def predict(self, inputs: Sequence[Array]) -> tuple[np.ndarray[Any, Any], ...]:
        """Run on a batch of any size.

        Args:
            inputs: One array per input, (batch, ...).

        Returns:
            One float32 array per output, (batch, ...).
        """
