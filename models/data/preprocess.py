"""How stored values become what the model is fed."""

from __future__ import annotations

import math

import msgspec
import numpy as np

from dsconvert.base.errors import InputError
from dsconvert.base.image_layout import Layout, arrange, channel_axes
from dsconvert.base.number_words import real_number
from dsconvert.base.predictor import Array

_LARGEST = 1e30


class Preprocessing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """y = (x·scale − mean) / std, with the channel axis of images where the model takes it.

    Attributes:
        scale: Factor, e.g. 1/255.
        mean: One number, or one per channel; None subtracts nothing.
        std: One number, or one per channel; None divides by nothing.
        channels_first: Whether images are wanted as (n, C, H, W). Without the wish they are moved
            to where the model takes them if they do not fit as they are stored.
        layout: A record, no wish: what was done with the channel axis of each input. Empty where
            all are as stored.

    Raises:
        InputError: If a number is not finite or too large for float32, or scale or std is 0.

    Example:
        >>> import dsconvert as ds
        >>> prepare = ds.Preprocessing(scale=1 / 16, mean=(0.5,))
        >>> ds.load_data("digits.npz", split="test", preprocessing=prepare).inputs[0].min()
        np.float32(-0.5)
    """

    scale: float = 1.0
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    channels_first: bool = False
    layout: tuple[Layout, ...] = ()

    def __post_init__(self) -> None:
        for name, values in (("scale", (self.scale,)), ("mean", self.mean), ("std", self.std)):
            if values is None:
                continue
            if not values or not all(map(math.isfinite, values)):
                raise InputError(f"{name} is {values}: it takes finite numbers.", code="not-finite")
            if name != "mean" and 0 in values:
                raise InputError(
                    f"{name} is {values}: 0 would erase the data or divide by zero.",
                    code="division-by-zero",
                )
            sizes = [abs(value) for value in values if value]
            if max(sizes, default=1) > _LARGEST or (name != "mean" and min(sizes) < 1 / _LARGEST):
                raise InputError(
                    f"{name} is {values}: float32 has no room for what that makes of images; "
                    f"allowed are {1 / _LARGEST:g} to {_LARGEST:g}.",
                    code="out-of-range",
                )

    @property
    def does_nothing(self) -> bool:
        """Tell whether values are fed as they are stored."""
        return (self.scale, self.mean, self.std, self.channels_first) == (1.0, None, None, False)

    def apply(self, values: Array, layout: Layout | None = None) -> Array:
        """Preprocess an array to float32.

        Args:
            values: As stored, (n, ...).
            layout: Where its channel axis goes; by default to the front of images (n, H, W, C) if
                ``channels_first``, else nowhere.

        Raises:
            InputError: If ``mean`` or ``std`` has another length than the channel axis.
        """
        if layout is None:
            layout = "moved first" if self.channels_first and values.ndim == 4 else "as stored"
        with np.errstate(over="ignore"):  # infinity is refused where samples are looked at
            result = arrange(values, layout).astype(np.float32)
        mean = self._per_channel("mean", self.mean, result.shape, layout)
        std = self._per_channel("std", self.std, result.shape, layout)
        if self.scale != 1:
            result *= np.float32(self.scale)
        if mean is not None:
            result -= mean
        if std is not None:
            result /= std
        return result

    def _per_channel(
        self, name: str, numbers: tuple[float, ...] | None, shape: tuple[int, ...], layout: Layout
    ) -> Array | None:
        """Return the numbers in a shape that goes with arrays of ``shape``, channel by channel."""
        if numbers is None or len(numbers) == 1:
            return None if numbers is None else np.asarray(numbers, np.float32)
        axes = channel_axes(shape, layout)
        axis = next((axis for axis in axes if shape[axis] == len(numbers)), None)
        if axis is None:
            which = "the last axis" if axes[0] == -1 else "the second axis"
            raise InputError(
                f"{len(numbers)} numbers for {name}, but {which} of the data has "
                f"{shape[axes[0]]} channels (shape {shape}).",
                "Give one number, or one per channel.",
                code="wrong-channel-count",
            )
        spread = [1] * len(shape)
        spread[axis] = len(numbers)
        return np.asarray(numbers, np.float32).reshape(spread)


def parse_number(text: str) -> float:
    """Return a number as people write it: "0.00392", "127.5", or a quotient such as "1/255".

    Raises:
        InputError: If it is neither, or not finite.
    """
    numerator, slash, denominator = text.partition("/")
    above, below = real_number(numerator), real_number(denominator) if slash else 1.0
    value = above / below if above is not None and below else math.nan
    if not math.isfinite(value):
        raise InputError(
            f"{text!r} is not a number.",
            'Write it as "0.5", "1e-3" or "1/255".',
            code="not-a-number",
        )
    return value
