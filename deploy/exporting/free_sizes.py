"""Models whose sizes are free, in formats that cannot hold them so."""

from __future__ import annotations

from collections.abc import Sequence

from dsconvert.base.errors import InputError


class FreeSizesRefused(InputError):
    """A model of free sizes cannot be converted; with fixed ones perhaps it can.

    Args:
        format: The format, as it is written.
        inputs: The names of the inputs of free sizes.
        reason: What was said of it.
        quantized: How it was to be quantized, in words.

    Example:
        >>> print(FreeSizesRefused("ONNX", ["image"], "no size.", "").message)
        ONNX cannot hold this model with the free sizes of image: no size.
    """

    default_code = "free-sizes"

    def __init__(
        self, format: str, inputs: Sequence[str], reason: str, quantized: str = ""
    ) -> None:
        super().__init__(
            f"{format} cannot hold this model{quantized} with the free sizes of "
            f"{', '.join(inputs)}: {reason}",
            "Fix them with --input-size HxW, or give images of one size (--calibration or "
            "--verification): the file is fixed to theirs.",
        )
