"""What can be chosen when a reference network is built."""

from __future__ import annotations

import msgspec

from dsconvert.base.errors import InputError


class BuildSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a reference network is built.

    Attributes:
        separable: Whether its convolutions are depthwise + pointwise pairs.
        input_shape: (H, W, C) of an image.
        classes: How many scores it gives.
        alpha: MobileNet's width multiplier α: every layer has α times the channels.
        shallow: MobileNet without its five blocks of 512 channels at 14×14.

    Raises:
        InputError: If a value is out of range.
    """

    separable: bool = True
    input_shape: tuple[int, int, int]
    classes: int
    alpha: float = 1.0
    shallow: bool = False

    def __post_init__(self) -> None:
        rules = {
            "input": (min(self.input_shape) >= 1, self.input_shape, "1 or more on every axis"),
            "classes": (self.classes >= 1, self.classes, "1 or more"),
            "alpha": (0 < self.alpha <= 4, self.alpha, "above 0, at most 4"),
        }
        wrong = [
            f"{name} is {value}, allowed: {allowed}"
            for name, (right, value, allowed) in rules.items()
            if not right
        ]
        if wrong:
            raise InputError(f"no network can be built so: {'; '.join(wrong)}.", code="bad-setting")
