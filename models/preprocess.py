"""How stored values become what the model is fed."""

from __future__ import annotations

import math

import msgspec
import numpy as np
from dsconvert.converter.core.errors import InputError
from dsconvert.converter.core.predictor import Array


class Preprocessing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """y = (x·scale − mean) / std, channels last; then, if asked, transposed to channels first.

    Attributes:
        scale: Factor, e.g. 1/255.
        mean: One number, or one per channel; None subtracts nothing.
        std: One number, or one per channel; None divides by nothing.
        channels_first: Whether the model takes images (n, C, H, W).

    Raises:
        InputError: If a number is not finite, or scale or std is 0.
    """

    scale: float = 1.0
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    channels_first: bool = False

    def __post_init__(self) -> None:
        for name, values in (("scale", (self.scale,)), ("mean", self.mean), ("std", self.std)):
            if values is None:
                continue
            if not values or not all(map(math.isfinite, values)):
                raise InputError(f"{name} is {values}: it takes finite numbers.")
            if name != "mean" and 0 in values:
                raise InputError(f"{name} is {values}: 0 would erase the data or divide by zero.")

    def apply(self, values: Array) -> Array:
        """Preprocess an array (n, ..., C) to float32, (n, ..., C) or (n, C, H, W).

        Raises:
            InputError: If ``mean`` or ``std`` has another length than the channel axis.
        """
        for name, numbers in (("mean", self.mean), ("std", self.std)):
            if numbers is not None and len(numbers) not in (1, values.shape[-1]):
                raise InputError(
                    f"{len(numbers)} numbers for {name}, but the last axis of the data has "
                    f"{values.shape[-1]} channels (shape {values.shape}).",
                    "Give one number, or one per channel.",
                )
        result = values.astype(np.float32)
        if self.scale != 1:
            result *= np.float32(self.scale)
        if self.mean is not None:
            result -= np.asarray(self.mean, np.float32)
        if self.std is not None:
            result /= np.asarray(self.std, np.float32)
        if self.channels_first and result.ndim == 4:
            result = np.ascontiguousarray(result.transpose(0, 3, 1, 2))
        return result


def parse_number(text: str) -> float:
    """A number as people write it: "0.00392", "127.5", or a quotient such as "1/255".

    Raises:
        InputError: If it is neither, or not finite.
    """
    numerator, _, denominator = text.partition("/")
    try:
        value = float(numerator) / float(denominator) if "/" in text else float(numerator)
    except (ValueError, ZeroDivisionError):
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{text!r} is not a number.", 'Write it as "0.5", "1e-3" or "1/255".')
    return value
