"""The record of one input or output of a model file."""

from __future__ import annotations

import msgspec

from dsconvert.base.predictor import Shape


class TensorInfo(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One input or output of a model file.

    Attributes:
        name: Its name.
        shape: Batch axis first; None where a size is free.
        dtype: The numpy name of the stored type, e.g. ``"int8"``.
        scale: For a quantized tensor, the s of real = s · (stored − zero_point); else None.
        zero_point: For a quantized tensor, its zero point; else None.
    """

    name: str
    shape: Shape
    dtype: str
    scale: float | None = None
    zero_point: int | None = None
